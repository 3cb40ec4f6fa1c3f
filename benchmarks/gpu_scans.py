"""The scan's kernel on a GPU, called through PyTorch: its numbers, and its time beside others'."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

import gpu_chip as chip
import torch
from gpu_chip import TYPES, Clock, Rows, failed, milliseconds, snr_db
from torch import Tensor

from bsmamba2 import cuda
from bsmamba2_network.scan import recurrence, scan

LEAST_DB = {"fp32": 95, "fp16": 50, "bf16": 35}
"""Against the recurrence in float64."""
HEADS, P, N = 16, 64, 128
AXES = {"time axis, 62 x 801": (62, 801), "band axis, 801 x 62": (801, 62)}


class Kernel:
    """Our kernel, as PyTorch's operator runs it on CUDA."""

    def __init__(self, library: Any) -> None:
        self.library = library
        self.states = True
        """Whether states are computed; a network that takes whole chunks reads none."""
        self.plain = False
        """Whether PyTorch's own scan runs in its place."""

    def __call__(self, zxbcdt: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
        if self.plain:
            return scan(zxbcdt, *rest)
        parameters, (_, state_size, reverse, epsilon) = rest[:8], rest[8:]
        kept = [v.detach().float().contiguous() for v in parameters]
        batch, length, _ = zxbcdt.shape
        zxbcdt = zxbcdt.contiguous()
        y = zxbcdt.new_empty(batch, length, kept[5].shape[0])
        conv, ssm = (v.new_empty(batch, *v.shape[1:]) for v in kept[6:])
        call = cuda.Call(
            batch, length, kept[3].shape[0], kept[6].shape[0], kept[7].shape[0], int(reverse),
            epsilon, zxbcdt.data_ptr(), *(v.data_ptr() for v in kept), y.data_ptr(),
            *((conv.data_ptr(), ssm.data_ptr()) if self.states else (None, None)),
        )  # fmt: skip
        kind = next(name for name, dtype in TYPES.items() if dtype == zxbcdt.dtype)
        stream = torch.cuda.current_stream().cuda_stream if zxbcdt.is_cuda else 0
        cuda.scan(self.library, call, kind, state_size, stream)
        return y, conv, ssm


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
    for kind, dtype in TYPES.items():
        worst = float("inf")
        for i, (batch, length, heads, states, reverse, kept) in enumerate(grid):
            given = random_call(batch, length, heads, states, dtype, kept, seed=i)
            attributes = (P, states, bool(reverse), 1e-5)
            got = ours(*given, *attributes)
            wanted = scan(*(v.double() for v in given), *attributes, state_space=recurrence)
            for w, g in zip(wanted, got, strict=True):
                if w.numel() and w.abs().sum() > 0:
                    worst = min(worst, snr_db(w, g))
        passed = worst >= LEAST_DB[kind]
        rows.append({"what": f"scan, {kind}, {len(grid)} calls", "worst dB": worst, "ok": passed})
    return rows


def scan_floor(batch: int, length: int, dtype: torch.dtype) -> tuple[float, float]:
    """The fewest bytes of a scan from zero states, and the operations of its products."""
    size, tokens = torch.empty(0, dtype=dtype).element_size(), batch * length
    inner = HEADS * P
    moved = tokens * (3 * inner + 2 * N + HEADS) * size
    chunks = -(-length // 64)
    in_chunk = tokens * 64 * (N + HEADS * P) * 2  # half of it beyond the diagonal
    through_states = tokens * HEADS * P * N * 4 * (chunks - 1) / max(chunks, 1)
    return moved, in_chunk / 2 + through_states


def mamba_ssm_scan() -> tuple[str, Callable[..., Tensor] | None]:
    """The chunked scan of mamba_ssm with its norm, and whose convolution it has; or why not."""
    try:
        # Its __init__ wants a compiled module that the Triton kernels have no use for.
        sys.modules.setdefault("selective_scan_cuda", types.ModuleType("selective_scan_cuda"))
        from mamba_ssm.ops.triton.layernorm_gated import rmsnorm_fn
        from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined
    except ModuleNotFoundError as error:
        return f"not installed ({error.name})", None
    except Exception as error:  # compiled for another PyTorch or Triton
        return failed(error), None
    causal_conv1d_fn, whose = None, "causal_conv1d's convolution"
    try:
        from causal_conv1d import causal_conv1d_fn
    except ModuleNotFoundError:
        whose = "PyTorch's convolution, causal_conv1d is not installed"
    except Exception as error:
        whose = f"PyTorch's convolution, causal_conv1d: {failed(error)}"

    def run(zxbcdt, conv_weight, conv_bias, dt_bias, A_log, D, norm_weight, *_states):
        inner = HEADS * P
        z, xBC, dt = zxbcdt.split([inner, inner + 2 * N, HEADS], -1)
        weight, bias = conv_weight.to(zxbcdt.dtype), conv_bias.to(zxbcdt.dtype)
        fed = xBC.transpose(1, 2)
        if causal_conv1d_fn:
            xBC = causal_conv1d_fn(fed, weight[:, 0], bias, activation="silu").transpose(1, 2)
        else:
            fed = torch.nn.functional.pad(fed, (3, 0))
            fed = torch.nn.functional.conv1d(fed, weight, bias, groups=fed.shape[1])
            xBC = torch.nn.functional.silu(fed).transpose(1, 2)
        x, B, C = xBC.split([inner, N, N], -1)
        y = mamba_chunk_scan_combined(
            x.unflatten(-1, (HEADS, P)), dt, -A_log.exp(), B.unsqueeze(2), C.unsqueeze(2), 256,
            D=D, dt_bias=dt_bias, dt_softplus=True,
        )  # fmt: skip
        return rmsnorm_fn(
            y.flatten(2), norm_weight.to(y.dtype), None, z=z, eps=1e-5, norm_before_gate=False
        )

    return whose, run


def time_scans(ours: Kernel, most: dict[str, float], clock: Clock) -> Rows:
    """One direction of one block at the paper's size and 8 s, from zero states."""
    attributes = (P, N, False, 1e-5)
    whose, theirs = mamba_ssm_scan()
    compiled = torch.compile(scan)
    rows: Rows = []
    for axis, (batch, length) in AXES.items():
        for kind, dtype in TYPES.items():
            given = random_call(batch, length, HEADS, N, dtype, 0)
            exact = ours(given[0].float(), *given[1:], *attributes)[0]
            moved, operations = scan_floor(batch, length, dtype)

            def row(
                who: str, run: Callable[[], Tensor], *, kind=kind, exact=exact, axis=axis,
                moved=moved, operations=operations,
            ) -> None:  # fmt: skip
                try:
                    answer = snr_db(exact, run())
                    took = milliseconds(run)
                except Exception as error:
                    rows.append({"what": f"{who}, {kind}", "axis": axis, "note": failed(error)})
                    return
                rows.append({
                    "what": f"{who}, {kind}", "axis": axis, "ms": took, "dB": answer,
                    "of copy": moved / took * 1e3 / most["copy bytes/s"],
                    "of product": operations / took * 1e3 / most["bf16 operations/s"],
                })  # fmt: skip

            row("our kernel", lambda given=given: ours(*given, *attributes)[0])
            if kind != "bf16":
                continue
            if theirs is None:
                rows.append({"what": "mamba_ssm, bf16", "axis": axis, "note": whose})
            else:
                row(f"mamba_ssm ({whose})", lambda given=given: theirs(*given))
            row("PyTorch eager", lambda given=given: scan(*given, *attributes)[0])
            if clock.left() > 240:
                row("torch.compile", lambda given=given: compiled(*given, *attributes)[0])
    return rows
