"""The scan's kernel on a GPU, called through PyTorch: its numbers, and its time next to others."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu import chip
from benchmarks.gpu.chip import TYPES, milliseconds, snr_db
from benchmarks.gpu.packages import skip_init
from benchmarks.gpu.rows import WRONG, Row, Rows, describe_error
from bsmamba2.devices import cuda
from bsmamba2_network import mamba_kernels
from bsmamba2_network.scan import _run, recurrence, scan

SCAN_DB = {"fp32": 95, "fp16": 50, "bf16": 35}
"""The lowest allowed SNR of our kernel against the recurrence in float64."""
LONG_SCAN_DB = {"our kernel": {"fp32": 90, "fp16": 45, "bf16": 30}}
"""The lowest allowed SNR against the plain scan in float32, on longer sequences."""
OTHERS_DB = 20
"""The lowest allowed SNR of other kernels, which may round more than ours."""
HEADS, P, N = 16, 64, 128
AXES = {"time axis, 62 x 801": (62, 801), "band axis, 801 x 62": (801, 62)}


class Kernel:
    """Our kernel as the implementation of PyTorch's operator on CUDA."""

    def __init__(self, library: Any) -> None:
        self.library = library
        self.states = True
        """Whether states are computed; a network on whole chunks does not read them."""
        self.compiled = False
        """Whether compiled code calls it, which needs full-size states even if nothing uses them.
        """
        self.bypassed = False
        """Whether the network's own scan runs instead."""

    def __call__(self, zxbcdt: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
        if self.bypassed:
            return _run(zxbcdt, *rest)
        parameters, (_, state_size, reverse, epsilon) = rest[:8], rest[8:]
        inputs = [v.detach().float().contiguous() for v in parameters]
        _, _, _, A_log, _, norm_weight, conv_state, ssm_state = inputs
        batch, length, columns = zxbcdt.shape
        dt_columns = columns - 2 * (norm_weight.shape[0] + state_size)
        zxbcdt = zxbcdt.contiguous()
        y = zxbcdt.new_empty(batch, length, norm_weight.shape[0])
        rows = batch if self.states or self.compiled else 1
        conv, ssm = (
            v.new_empty(rows, *v.shape[1:]).expand(batch, *v.shape[1:])
            for v in (conv_state, ssm_state)
        )
        call = cuda.Call(
            batch, length, A_log.shape[0], conv_state.shape[0], ssm_state.shape[0], int(reverse),
            dt_columns, epsilon, zxbcdt.data_ptr(), *(v.data_ptr() for v in inputs), y.data_ptr(),
            *((conv.data_ptr(), ssm.data_ptr()) if self.states else (None, None)),
        )  # fmt: skip
        kind = next(name for name, dtype in TYPES.items() if dtype == zxbcdt.dtype)
        stream = torch.cuda.current_stream().cuda_stream if zxbcdt.is_cuda else 0
        cuda.scan(self.library, call, kind, state_size, stream)
        return y, conv, ssm


@contextmanager
def without(ours: Kernel, *, mamba_ssm: bool = False) -> Iterator[None]:
    """Runs scans within the block by PyTorch or mamba_ssm, forward and backward."""
    before = ours.bypassed, mamba_kernels.supports
    ours.bypassed = True
    if not mamba_ssm:
        mamba_kernels.supports = lambda *_: False
    try:
        yield
    finally:
        ours.bypassed, mamba_kernels.supports = before


def random_call(
    batch: int,
    length: int,
    heads: int,
    states: int,
    dtype: torch.dtype,
    initial_states: int,
    seed: int = 0,
) -> list[Tensor]:
    """Returns random inputs of a scan in the usual ranges.

    Args:
        initial_states: ``batch`` for one per sequence, 1 for one that all sequences share, 0 for
            zeros that all share.
    """
    draw = torch.Generator(chip.DEVICE).manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw, device=chip.DEVICE)

    inner, channels = heads * P, heads * P + 2 * states
    A_log = torch.linspace(0, 2.77, heads, device=chip.DEVICE)
    return [
        normal(batch, length, inner + channels + heads).to(dtype),
        normal(channels, 1, 4) * 0.5,
        normal(channels),
        normal(heads) - 2,
        A_log,
        normal(heads),
        normal(inner),
        normal(max(initial_states, 1), channels, 3) * (initial_states > 0),
        normal(max(initial_states, 1), heads, P, states) * (initial_states > 0),
    ]


LENGTHS = ((1, 0), (2, 1), (2, 3), (3, 63), (2, 64), (2, 65), (2, 200), (900, 5))
"""The batches and lengths to check."""
SIZES = ((1, 64), (3, 64), (16, 128))
"""The numbers of heads and states to check."""


def check_scan(ours: Kernel) -> Rows:
    """Compares the kernels with the recurrence in float64, on the CPU kernel's grid of tests."""
    rows = []
    grid = [
        (batch, length, heads, states, reverse, initial_states)
        for batch, length in LENGTHS
        for heads, states in SIZES
        for reverse, initial_states in ((0, batch), (1, 1), (1, 0))
    ]
    for kind in TYPES:
        row: Row = {"what": f"scan, {kind}, {len(grid)} calls"}
        try:
            row["dB"] = min(worst_db(ours, kind, seed, *call) for seed, call in enumerate(grid))
            row["ok"] = row["dB"] >= SCAN_DB[kind]
        except Exception as error:
            row |= {"ok": False, "note": describe_error(error)}
        rows.append(row)
    return rows


def worst_db(
    ours: Kernel, kind: str, seed: int, batch: int, length: int, heads: int, states: int,
    reverse: int, initial_states: int,
) -> float:  # fmt: skip
    """Returns the lowest SNR of y and both states of one call."""
    inputs = random_call(batch, length, heads, states, TYPES[kind], initial_states, seed)
    attributes = (P, states, bool(reverse), 1e-5)
    outputs = ours(*inputs, *attributes)
    exact_call: list[Any] = [*(v.double() for v in inputs), *attributes]
    expected = scan(*exact_call, state_space=recurrence)
    pairs = [(e, o) for e, o in zip(expected, outputs, strict=True) if e.numel() and e.any()]
    return min((snr_db(e, o) for e, o in pairs), default=float("inf"))


def scan_floor(batch: int, length: int, dtype: torch.dtype) -> tuple[float, float]:
    """Returns the fewest bytes that a scan from zero states moves, and its products' operations."""
    size, tokens = torch.empty(0, dtype=dtype).element_size(), batch * length
    inner = HEADS * P
    moved = tokens * (3 * inner + 2 * N + HEADS) * size
    segments = -(-length // 64)
    in_segment = tokens * 64 * (N + HEADS * P) * 2  # half of it is above the diagonal
    through_states = tokens * HEADS * P * N * 4 * (segments - 1) / max(segments, 1)
    return moved, in_segment / 2 + through_states


@cache
def mamba_ssm_missing() -> str:
    """Returns why the kernels of mamba_ssm cannot be used; empty if they can."""
    try:
        # Its __init__ imports compiled modules and packages that the Triton kernels do not need.
        skip_init("mamba_ssm")
        sys.modules.setdefault("selective_scan_cuda", types.ModuleType("selective_scan_cuda"))
        import mamba_ssm.ops.triton.ssd_combined  # noqa: F401 - tests whether it can be imported
    except Exception as error:  # missing, or built for another PyTorch or Triton
        return describe_error(error)
    return "" if mamba_kernels.installed() else "mamba_ssm has no scan of Mamba2"


def mamba_ssm_scan() -> tuple[str, Callable[..., Tensor] | None]:
    """Returns the name of the convolution in use, and the chunked scan of mamba_ssm with its norm.

    Without mamba_ssm, returns why it cannot be used, and None.
    """
    if reason := mamba_ssm_missing():
        return reason, None
    kernels = mamba_kernels.installed()
    assert kernels is not None
    by_pytorch = kernels.convolve is mamba_kernels._convolve
    convolution = "PyTorch's convolution" if by_pytorch else "causal_conv1d's convolution"

    def run(
        zxbcdt: Tensor,
        conv_weight: Tensor,
        conv_bias: Tensor,
        dt_bias: Tensor,
        A_log: Tensor,
        D: Tensor,
        norm_weight: Tensor,
        *_states: Tensor,
    ) -> Tensor:
        inner = HEADS * P
        z, xBC, dt = zxbcdt.split([inner, inner + 2 * N, HEADS], -1)
        weight, bias = conv_weight.to(zxbcdt.dtype), conv_bias.to(zxbcdt.dtype)
        channels_first = xBC.transpose(1, 2)
        xBC = kernels.convolve(channels_first, weight[:, 0], bias, activation="silu")
        x, B, C = xBC.transpose(1, 2).split([inner, N, N], -1)
        # Without return_final_states it returns y alone.
        y: Any = kernels.chunk_scan(
            x.unflatten(-1, (HEADS, P)), dt, -A_log.exp(), B.unsqueeze(2), C.unsqueeze(2), 256,
            D=D, dt_bias=dt_bias, dt_softplus=True,
        )  # fmt: skip
        return kernels.gated_norm(
            y.flatten(2), norm_weight.to(y.dtype), None, z=z, eps=1e-5, norm_before_gate=False
        )

    return convolution, run


def time_scans(ours: Kernel, ceilings: dict[str, float]) -> Rows:
    """Times one direction of one block at the paper's size and 8 s, from zero states."""
    convolution, theirs = mamba_ssm_scan()
    rows: Rows = []
    for axis, (batch, length) in AXES.items():
        for kind, dtype in TYPES.items():
            inputs = random_call(batch, length, HEADS, N, dtype, 0)
            call: tuple[Any, ...] = (*inputs, P, N, False, 1e-5)
            exact = scan(inputs[0].float(), *call[1:])[0]
            floor = scan_floor(batch, length, dtype)
            measure = partial(
                time_scan, kind=kind, axis=axis, exact=exact, floor=floor, ceilings=ceilings
            )
            rows.append(measure("our kernel", partial(first_output, ours, call)))
            if kind != "bf16":
                continue
            if theirs is None:
                rows.append({"what": "mamba_ssm, bf16", "axis": axis, "note": convolution})
            else:
                rows.append(measure(f"mamba_ssm ({convolution})", partial(theirs, *inputs)))
            rows.append(measure("PyTorch eager", partial(first_output, scan, call)))
    return rows


def time_scan(
    who: str, run: Callable[[], Tensor], kind: str, axis: str, exact: Tensor,
    floor: tuple[float, float], ceilings: dict[str, float],
) -> Row:  # fmt: skip
    """Measures one row: the output's SNR, the time, and the shares of the chip's ceilings."""
    row: Row = {"what": f"{who}, {kind}", "axis": axis}
    try:
        row["dB"] = snr_db(exact, run())
        row["ok"] = row["dB"] >= LONG_SCAN_DB.get(who, {}).get(kind, OTHERS_DB)
        if not row["ok"]:
            return {**row, "note": WRONG}
        row["ms"] = ms = milliseconds(run)
        row["of copy"] = floor[0] / ms * 1e3 / ceilings["copy bytes/s"]
        row["of product"] = floor[1] / ms * 1e3 / ceilings["bf16 operations/s"]
    except Exception as error:
        row["note"] = describe_error(error)
    return row


def first_output(run: Callable[..., tuple[Tensor, ...]], inputs: tuple[Any, ...]) -> Tensor:
    return run(*inputs)[0]
