"""The GPU that is measured: its clock, its memory, and what it can do at most."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

DEVICE = "cuda"
"""The tests of these programs put the CPU in its place."""
TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
RATE = 44100


def exact_float32() -> None:
    """Float32 is what all else is compared with: no TF32 in it, which convolutions have unasked."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


class Clock:
    """What is left of the time that was asked for, in seconds."""

    def __init__(self, minutes: float) -> None:
        self.end = time.monotonic() + minutes * 60

    def left(self) -> float:
        return self.end - time.monotonic()


def milliseconds(run: Callable[[], Any], seconds: float = 0.6) -> float:
    """The median time of a run on the GPU, after a warm-up."""
    if DEVICE == "cpu":
        return _milliseconds_on_cpu(run)
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    torch.cuda.synchronize()
    count = max(5, min(100, int(seconds / max(time.perf_counter() - start, 1e-6))))
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
    marks[0].record()
    for mark in marks[1:]:
        run()
        mark.record()
    torch.cuda.synchronize()
    return statistics.median(a.elapsed_time(b) for a, b in pairwise(marks))


def _milliseconds_on_cpu(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) * 1e3


def forget_peak() -> None:
    """Gives back what nothing holds, and counts the peak of memory from here."""
    if DEVICE == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_gb() -> float:
    """The most memory that tensors took since :func:`forget_peak`."""
    return torch.cuda.max_memory_allocated() / 1e9 if DEVICE == "cuda" else 0.0


def pinned(values: Tensor) -> Tensor:
    """In memory of the host that the GPU copies from and to without help."""
    return values.pin_memory() if DEVICE == "cuda" else values


def snr_db(wanted: Tensor, got: Tensor) -> float:
    """Signal over error; minus infinite where NaN came."""
    error = (wanted.double() - got.double()).square().sum()
    if not torch.isfinite(error):
        return float("-inf")
    return float(10 * torch.log10(wanted.double().square().sum() / error.clamp_min(1e-300)))


def ceilings() -> dict[str, float]:
    """Bytes a second of a copy, read and written; operations a second of a product in bfloat16."""
    large = DEVICE == "cuda"

    def copy() -> float:
        source = torch.randn(1 << (29 if large else 16), device=DEVICE)
        target = torch.empty_like(source)
        return 2 * source.nbytes / milliseconds(lambda: target.copy_(source)) * 1e3

    n = 8192 if large else 64
    a, b = (torch.randn(n, n, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    copied, multiplied = copy(), 2 * n**3 / milliseconds(lambda: a @ b) * 1e3
    return {"copy bytes/s": copied, "bf16 operations/s": multiplied}
