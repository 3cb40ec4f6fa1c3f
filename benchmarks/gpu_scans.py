"""The scan's kernel on a GPU, called through PyTorch: its numbers, and its time beside others'."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import gpu_chip as chip
import torch
from gpu_chip import TYPES, milliseconds, snr_db
from gpu_rows import WRONG, Row, Rows, failed, parts_alone
from torch import Tensor

from bsmamba2.devices import cuda
from bsmamba2_network import mamba_kernels
from bsmamba2_network.scan import _run, recurrence, scan

SCAN_DB = {"fp32": 95, "fp16": 50, "bf16": 35}
"""Against the recurrence in float64."""
SCAN_BESIDE_DB = {"our kernel": {"fp32": 90, "fp16": 45, "bf16": 30}}
"""Against the plain scan in float32, on longer sequences."""
OTHERS_DB = 20
"""Theirs, who may round where ours does not: what is below is not the same scan."""
HEADS, P, N = 16, 64, 128
AXES = {"time axis, 62 x 801": (62, 801), "band axis, 801 x 62": (801, 62)}


class Kernel:
    """Our kernel, as PyTorch's operator runs it on CUDA."""

    def __init__(self, library: Any) -> None:
        self.library = library
        self.states = True
        """Whether states are computed; a network that takes whole chunks reads none."""
        self.compiled = False
        """Whether compiled code calls it: that wants memory for what nobody computes or reads."""
        self.stands_aside = False
        """Whether the network's own scan runs in its place."""

    def __call__(self, zxbcdt: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
        if self.stands_aside:
            return _run(zxbcdt, *rest)
        parameters, (_, state_size, reverse, epsilon) = rest[:8], rest[8:]
        kept = [v.detach().float().contiguous() for v in parameters]
        batch, length, _ = zxbcdt.shape
        zxbcdt = zxbcdt.contiguous()
        y = zxbcdt.new_empty(batch, length, kept[5].shape[0])
        rows = batch if self.states or self.compiled else 1
        conv, ssm = (v.new_empty(rows, *v.shape[1:]).expand(batch, *v.shape[1:]) for v in kept[6:])
        call = cuda.Call(
            batch, length, kept[3].shape[0], kept[6].shape[0], kept[7].shape[0], int(reverse),
            epsilon, zxbcdt.data_ptr(), *(v.data_ptr() for v in kept), y.data_ptr(),
            *((conv.data_ptr(), ssm.data_ptr()) if self.states else (None, None)),
        )  # fmt: skip
        kind = next(name for name, dtype in TYPES.items() if dtype == zxbcdt.dtype)
        stream = torch.cuda.current_stream().cuda_stream if zxbcdt.is_cuda else 0
        cuda.scan(self.library, call, kind, state_size, stream)
        return y, conv, ssm


@contextmanager
def without(ours: Kernel, *, mamba_ssm: bool = False) -> Iterator[None]:
    """Inside, scans run as PyTorch does them, forwards and backwards; or as mamba_ssm does."""
    kept = ours.stands_aside, mamba_kernels.take
    ours.stands_aside = True
    if not mamba_ssm:
        mamba_kernels.take = lambda *_: False
    try:
        yield
    finally:
        ours.stands_aside, mamba_kernels.take = kept


def random_call(
    batch: int, length: int, heads: int, states: int, dtype: torch.dtype, kept: int, seed: int = 0
) -> list[Tensor]:
    """Ordinary values; ``kept`` sequences have a state of their own, 0 stands for one zero."""
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
        normal(max(kept, 1), channels, 3) * (kept > 0),
        normal(max(kept, 1), heads, P, states) * (kept > 0),
    ]


LENGTHS = ((1, 0), (2, 1), (2, 3), (3, 63), (2, 64), (2, 65), (2, 200), (900, 5))
"""Batches and lengths that are checked."""
SIZES = ((1, 64), (3, 64), (16, 128))
"""Heads and states."""


def check_scan(ours: Kernel) -> Rows:
    """The kernels against the recurrence in float64, over the grid of the CPU kernel."""
    rows = []
    grid = [
        (batch, length, heads, states, reverse, kept)
        for batch, length in LENGTHS
        for heads, states in SIZES
        for reverse, kept in ((0, batch), (1, 1), (1, 0))
    ]
    for kind in TYPES:
        row: Row = {"what": f"scan, {kind}, {len(grid)} calls"}
        try:
            row["dB"] = min(worst_db(ours, kind, seed, *call) for seed, call in enumerate(grid))
            row["ok"] = row["dB"] >= SCAN_DB[kind]
        except Exception as error:
            row |= {"ok": False, "note": failed(error)}
        rows.append(row)
    return rows


def worst_db(
    ours: Kernel, kind: str, seed: int, batch: int, length: int, heads: int, states: int,
    reverse: int, kept: int,
) -> float:  # fmt: skip
    """Of y and both states of one call."""
    given = random_call(batch, length, heads, states, TYPES[kind], kept, seed)
    attributes = (P, states, bool(reverse), 1e-5)
    got = ours(*given, *attributes)
    wanted = scan(*(v.double() for v in given), *attributes, state_space=recurrence)
    compared = [(w, g) for w, g in zip(wanted, got, strict=True) if w.numel() and w.any()]
    return min((snr_db(w, g) for w, g in compared), default=float("inf"))


def scan_floor(batch: int, length: int, dtype: torch.dtype) -> tuple[float, float]:
    """The fewest bytes of a scan from zero states, and the operations of its products."""
    size, tokens = torch.empty(0, dtype=dtype).element_size(), batch * length
    inner = HEADS * P
    moved = tokens * (3 * inner + 2 * N + HEADS) * size
    chunks = -(-length // 64)
    in_chunk = tokens * 64 * (N + HEADS * P) * 2  # half of it beyond the diagonal
    through_states = tokens * HEADS * P * N * 4 * (chunks - 1) / max(chunks, 1)
    return moved, in_chunk / 2 + through_states


@cache
def mamba_ssm() -> str:
    """Why the kernels of mamba_ssm cannot be used; empty where they can."""
    try:
        # Its __init__ wants compiled modules and packages that the Triton kernels have no use for.
        parts_alone("mamba_ssm")
        sys.modules.setdefault("selective_scan_cuda", types.ModuleType("selective_scan_cuda"))
        import mamba_ssm.ops.triton.ssd_combined  # noqa: F401
    except Exception as error:  # not there, or made for another PyTorch or Triton
        return failed(error)
    return "" if mamba_kernels.installed() else "mamba_ssm has no scan of Mamba2"


def mamba_ssm_scan() -> tuple[str, Callable[..., Tensor] | None]:
    """The chunked scan of mamba_ssm with its norm, and whose convolution it has; or why not."""
    if lacking := mamba_ssm():
        return lacking, None
    kernels = mamba_kernels.installed()
    own = kernels.convolve is mamba_kernels._convolve
    whose = "PyTorch's convolution" if own else "causal_conv1d's convolution"

    def run(zxbcdt, conv_weight, conv_bias, dt_bias, A_log, D, norm_weight, *_states):
        inner = HEADS * P
        z, xBC, dt = zxbcdt.split([inner, inner + 2 * N, HEADS], -1)
        weight, bias = conv_weight.to(zxbcdt.dtype), conv_bias.to(zxbcdt.dtype)
        fed = xBC.transpose(1, 2)
        xBC = kernels.convolve(fed, weight[:, 0], bias, activation="silu").transpose(1, 2)
        x, B, C = xBC.split([inner, N, N], -1)
        y = kernels.chunk_scan(
            x.unflatten(-1, (HEADS, P)), dt, -A_log.exp(), B.unsqueeze(2), C.unsqueeze(2), 256,
            D=D, dt_bias=dt_bias, dt_softplus=True,
        )  # fmt: skip
        return kernels.gated_norm(
            y.flatten(2), norm_weight.to(y.dtype), None, z=z, eps=1e-5, norm_before_gate=False
        )

    return whose, run


def time_scans(ours: Kernel, most: dict[str, float]) -> Rows:
    """One direction of one block at the paper's size and 8 s, from zero states."""
    whose, theirs = mamba_ssm_scan()
    rows: Rows = []
    for axis, (batch, length) in AXES.items():
        for kind, dtype in TYPES.items():
            given = random_call(batch, length, HEADS, N, dtype, 0)
            call = (*given, P, N, False, 1e-5)
            exact = scan(given[0].float(), *call[1:])[0]
            floor = scan_floor(batch, length, dtype)

            def row(who: str, run: Callable[[], Tensor], *, to=(kind, axis, exact, floor)) -> None:
                rows.append(time_scan(who, run, *to, most))

            row("our kernel", lambda call=call: ours(*call)[0])
            if kind != "bf16":
                continue
            if theirs is None:
                rows.append({"what": "mamba_ssm, bf16", "axis": axis, "note": whose})
            else:
                row(f"mamba_ssm ({whose})", lambda given=given: theirs(*given))
            row("PyTorch eager", lambda call=call: scan(*call)[0])
    return rows


def time_scan(
    who: str, run: Callable[[], Tensor], kind: str, axis: str, exact: Tensor,
    floor: tuple[float, float], most: dict[str, float],
) -> Row:  # fmt: skip
    """One row: the answer's SNR, the time, and the shares of the ceilings that it reaches."""
    row: Row = {"what": f"{who}, {kind}", "axis": axis}
    try:
        row["dB"] = snr_db(exact, run())
        row["ok"] = row["dB"] >= SCAN_BESIDE_DB.get(who, {}).get(kind, OTHERS_DB)
        if not row["ok"]:
            return {**row, "note": WRONG}
        row["ms"] = took = milliseconds(run)
        row["of copy"] = floor[0] / took * 1e3 / most["copy bytes/s"]
        row["of product"] = floor[1] / took * 1e3 / most["bf16 operations/s"]
    except Exception as error:
        row["note"] = failed(error)
    return row
