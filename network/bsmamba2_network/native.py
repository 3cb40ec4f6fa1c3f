"""The scan and its gradients by the C++ kernel, for training on a CPU.

Off by default: exports are verified against the plain body in :mod:`~bsmamba2_network.scan`. Inside
:func:`training` the operator uses the kernel if the library has been built and supports the call:
float32 on the CPU, head and state sizes that are multiples of 64, and at least one step.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

import torch
from torch import Tensor

from bsmamba2.devices import kernel

_is_enabled = ContextVar("_is_enabled", default=False)


@contextmanager
def training() -> Iterator[bool]:
    """Lets ``mamba2_scan`` use the kernel inside the block; yields whether the library exists."""
    token = _is_enabled.set(True)
    try:
        yield _library() is not None
    finally:
        _is_enabled.reset(token)


def is_available() -> bool:
    """Returns whether the call is inside :func:`training` and the library exists."""
    return _is_enabled.get() and _library() is not None


def supports(*inputs: Any) -> bool:
    """Returns whether the kernel is enabled and supports this call.

    Args:
        inputs: the thirteen inputs of :func:`~bsmamba2_network.scan.mamba2_scan`.
    """
    *tensors, head_dim, state_size, _, _ = inputs
    return (
        is_available()
        and all(v.device.type == "cpu" and v.dtype == torch.float32 for v in tensors)
        and head_dim % 64 == 0
        and state_size % 64 == 0
        and tensors[0].numel() > 0
    )


def forward(*inputs: Any, needs_states: bool = True) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Computes the same as :func:`~bsmamba2_network.scan.scan`, without autograd.

    Args:
        inputs: the thirteen inputs of :func:`~bsmamba2_network.scan.mamba2_scan`.
        needs_states: whether to compute the states after the last step; if not, they are None.
    """
    tensors = [v.contiguous() for v in inputs[:9]]
    zxbcdt, norm_weight, conv_state, ssm_state = (tensors[i] for i in (0, 6, 7, 8))
    batch, length = zxbcdt.shape[:2]
    outputs = (
        zxbcdt.new_empty(batch, length, norm_weight.shape[0]),
        conv_state.new_empty(batch, *conv_state.shape[1:]) if needs_states else None,
        ssm_state.new_empty(batch, *ssm_state.shape[1:]) if needs_states else None,
    )
    _call("bsmamba2_scan", tensors, inputs[9:], outputs)
    return outputs


def gradients(
    *inputs: Any, output_gradients: Sequence[Tensor | None], needs_ssm_state: bool
) -> list[Tensor | None]:
    """Computes the loss's gradients with respect to the nine tensors among the inputs.

    Args:
        inputs: the thirteen inputs of :func:`~bsmamba2_network.scan.mamba2_scan`.
        output_gradients: the gradients with respect to the three outputs; None for an unused one.
        needs_ssm_state: whether to compute the gradient for ``ssm_state``; if not, it is None.
    """
    tensors = [v.contiguous() for v in inputs[:9]]
    batch, length = tensors[0].shape[:2]
    y, *states = output_gradients
    if y is None:
        y = tensors[0].new_zeros(batch, length, tensors[6].shape[0])
    incoming = [None if v is None else v.contiguous() for v in (y, *states)]
    results: list[Tensor | None] = [torch.empty_like(v) for v in tensors[:7]]
    results += [v.new_empty(batch, *v.shape[1:]) for v in tensors[7:]]
    if not needs_ssm_state:
        results[8] = None
    _call("bsmamba2_scan_gradients", tensors, inputs[9:], incoming, results)
    for i in (7, 8):  # all sequences share a state of batch 1
        gradient = results[i]
        if gradient is not None and tensors[i].shape[0] == 1:
            results[i] = gradient.sum(0, keepdim=True)
    return results


def _call(
    name: str,
    tensors: Sequence[Tensor],
    attributes: Sequence[Any],
    *others: Sequence[Tensor | None],
) -> None:
    """Calls one of the two functions declared in runtime/native/training.h."""
    head_dim, state_size, reverse, epsilon = attributes
    sizes = [*tensors[0].shape[:2], tensors[4].shape[0], head_dim, state_size, tensors[1].shape[2]]
    sizes += [int(reverse), tensors[7].shape[0], tensors[8].shape[0], torch.get_num_threads()]
    pointers = [
        (ctypes.c_void_p * len(group))(*(None if v is None else v.data_ptr() for v in group))
        for group in (tensors, *others)
    ]
    function = getattr(_library(), name)
    if function((ctypes.c_int64 * len(sizes))(*sizes), ctypes.c_float(epsilon), *pointers):
        raise MemoryError(f"scanning {sizes[0]} × {sizes[1]} steps does not fit in memory")


@cache
def _library() -> ctypes.CDLL | None:
    path = kernel.library()
    return ctypes.CDLL(str(path)) if path and kernel.instruction_set() else None
