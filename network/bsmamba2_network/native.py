"""The scan and its gradients by the C++ kernel, for training on a CPU.

Off by default: the plain body of :mod:`~bsmamba2_network.scan` is the reference that exports are
verified against. Under :func:`training` the operator takes the kernel where the library was built
and the call fits it: float32 on the CPU, head and state sizes in multiples of 64, at least a step.
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

_is_wanted = ContextVar("_is_wanted", default=False)


@contextmanager
def training() -> Iterator[bool]:
    """Inside, the operator ``mamba2_scan`` is the kernel's; yields whether there is one."""
    token = _is_wanted.set(True)
    try:
        yield _library() is not None
    finally:
        _is_wanted.reset(token)


def takes(*inputs: Any) -> bool:
    """Whether :func:`forward` and :func:`gradients` are to be called, with these thirteen inputs of
    :func:`~bsmamba2_network.scan.mamba2_scan`."""
    *tensors, head_dim, state_size, _, _ = inputs
    return (
        _is_wanted.get()
        and all(v.device.type == "cpu" and v.dtype == torch.float32 for v in tensors)
        and head_dim % 64 == 0
        and state_size % 64 == 0
        and tensors[0].numel() > 0
        and _library() is not None
    )


def forward(*inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
    """As :func:`~bsmamba2_network.scan.scan`, without autograd."""
    tensors = [v.contiguous() for v in inputs[:9]]
    zxbcdt, norm_weight, conv_state, ssm_state = (tensors[i] for i in (0, 6, 7, 8))
    batch, length = zxbcdt.shape[:2]
    outputs = (
        zxbcdt.new_empty(batch, length, norm_weight.shape[0]),
        conv_state.new_empty(batch, *conv_state.shape[1:]),
        ssm_state.new_empty(batch, *ssm_state.shape[1:]),
    )
    _call("bsmamba2_scan", tensors, inputs[9:], outputs)
    return outputs


def gradients(*inputs: Any, given: Sequence[Tensor | None], ssm_state: bool) -> list[Tensor | None]:
    """The loss's gradients by the nine tensors among the inputs.

    Args:
        given: those by the three outputs; None for one that nobody read.
        ssm_state: whether the one by ``ssm_state`` is wanted; None in its place otherwise.
    """
    tensors = [v.contiguous() for v in inputs[:9]]
    batch, length = tensors[0].shape[:2]
    y = tensors[0].new_zeros(batch, length, tensors[6].shape[0]) if given[0] is None else given[0]
    came = [None if v is None else v.contiguous() for v in (y, *given[1:])]
    found: list[Tensor | None] = [torch.empty_like(v) for v in tensors[:7]]
    found += [v.new_empty(batch, *v.shape[1:]) for v in tensors[7:]]
    if not ssm_state:
        found[8] = None
    _call("bsmamba2_scan_gradients", tensors, inputs[9:], came, found)
    for i in (7, 8):  # a state of batch 1 is every sequence's
        gradient = found[i]
        if gradient is not None and tensors[i].shape[0] == 1:
            found[i] = gradient.sum(0, keepdim=True)
    return found


def _call(
    name: str,
    tensors: Sequence[Tensor],
    attributes: Sequence[Any],
    *others: Sequence[Tensor | None],
) -> None:
    """One of the two functions of runtime/native/training.h."""
    head_dim, state_size, reverse, epsilon = attributes
    sizes = [*tensors[0].shape[:2], tensors[4].shape[0], head_dim, state_size, tensors[1].shape[2]]
    sizes += [int(reverse), tensors[7].shape[0], tensors[8].shape[0], torch.get_num_threads()]
    pointers = [
        (ctypes.c_void_p * len(group))(*(None if v is None else v.data_ptr() for v in group))
        for group in (tensors, *others)
    ]
    function = getattr(_library(), name)
    if function((ctypes.c_int64 * len(sizes))(*sizes), ctypes.c_float(epsilon), *pointers):
        raise MemoryError(f"the scan of {sizes[0]} sequences of {sizes[1]} does not fit in memory")


@cache
def _library() -> ctypes.CDLL | None:
    path = kernel.library()
    return ctypes.CDLL(str(path)) if path and kernel.instruction_set() else None
