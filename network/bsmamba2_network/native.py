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

import torch
from torch import Tensor

from bsmamba2 import kernel

_is_wanted = ContextVar("_is_wanted", default=False)


@contextmanager
def training() -> Iterator[bool]:
    """Inside, the operator ``mamba2_scan`` is the kernel's; yields whether there is one."""
    token = _is_wanted.set(True)
    try:
        yield _library() is not None
    finally:
        _is_wanted.reset(token)


def takes(inputs: Sequence[Tensor], head_dim: int, state_size: int) -> bool:
    """Whether :func:`forward` and :func:`gradients` are to be called with these inputs."""
    return (
        _is_wanted.get()
        and all(v.device.type == "cpu" and v.dtype == torch.float32 for v in inputs)
        and head_dim % 64 == 0
        and state_size % 64 == 0
        and inputs[0].numel() > 0
        and _library() is not None
    )


def forward(
    inputs: Sequence[Tensor], head_dim: int, state_size: int, reverse: bool, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """As :func:`~bsmamba2_network.scan.scan`, of its nine tensors."""
    inputs = [v.contiguous() for v in inputs]
    zxbcdt, conv_weight, conv_state, ssm_state = inputs[0], inputs[1], inputs[7], inputs[8]
    batch, length = zxbcdt.shape[:2]
    outputs = (
        zxbcdt.new_empty(batch, length, inputs[6].shape[0]),
        conv_state.new_empty(batch, *conv_state.shape[1:]),
        ssm_state.new_empty(batch, *ssm_state.shape[1:]),
    )
    sizes = _sizes(inputs, head_dim, state_size, conv_weight.shape[2], reverse)
    _call("bsmamba2_scan", sizes, epsilon, inputs, outputs)
    return outputs


def gradients(
    inputs: Sequence[Tensor],
    given: Sequence[Tensor | None],
    head_dim: int,
    state_size: int,
    reverse: bool,
    epsilon: float,
    *,
    ssm_state: bool,
) -> list[Tensor | None]:
    """The loss's gradients by the nine inputs, from those by the three outputs.

    Args:
        given: None for an output that nobody read.
        ssm_state: whether the one by ``ssm_state`` is wanted; None in its place otherwise.
    """
    inputs = [v.contiguous() for v in inputs]
    batch, length = inputs[0].shape[:2]
    y = inputs[0].new_zeros(batch, length, inputs[6].shape[0]) if given[0] is None else given[0]
    given = [None if v is None else v.contiguous() for v in (y, *given[1:])]
    found: list[Tensor | None] = [torch.empty_like(v) for v in inputs[:7]]
    found += [v.new_empty(batch, *v.shape[1:]) for v in inputs[7:]]
    if not ssm_state:
        found[8] = None
    sizes = _sizes(inputs, head_dim, state_size, inputs[1].shape[2], reverse)
    _call("bsmamba2_scan_gradients", sizes, epsilon, inputs, given, found)
    for i in (7, 8):  # a state of batch 1 is every sequence's
        gradient = found[i]
        if gradient is not None and inputs[i].shape[0] == 1:
            found[i] = gradient.sum(0, keepdim=True)
    return found


def _sizes(
    inputs: Sequence[Tensor], head_dim: int, state_size: int, taps: int, reverse: bool
) -> list[int]:
    batch, length = inputs[0].shape[:2]
    states = [v.shape[0] for v in inputs[7:]]
    heads, threads = inputs[4].shape[0], torch.get_num_threads()
    return [batch, length, heads, head_dim, state_size, taps, int(reverse), *states, threads]


def _call(name: str, sizes: list[int], epsilon: float, *groups: Sequence[Tensor | None]) -> None:
    pointers = [
        (ctypes.c_void_p * len(group))(*(None if v is None else v.data_ptr() for v in group))
        for group in groups
    ]
    function = getattr(_library(), name)
    if function((ctypes.c_int64 * len(sizes))(*sizes), ctypes.c_float(epsilon), *pointers):
        raise MemoryError(f"the scan of {sizes[0]} sequences of {sizes[1]} does not fit in memory")


@cache
def _library() -> ctypes.CDLL | None:
    path = kernel.library()
    return ctypes.CDLL(str(path)) if path and kernel.instruction_set() else None
