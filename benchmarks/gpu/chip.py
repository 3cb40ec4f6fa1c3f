"""The measured GPU: timing, memory, and the ceilings that it reaches."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

DEVICE = "cuda"
"""The tests replace it with the CPU."""
TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
RATE = 44100


def exact_float32() -> None:
    """Turns TF32 off, which PyTorch uses in convolutions by default: float32 is the reference."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


class Clock:
    """A time budget."""

    def __init__(self, minutes: float) -> None:
        self.end = time.monotonic() + minutes * 60

    def left_s(self) -> float:
        return self.end - time.monotonic()


def milliseconds(run: Callable[[], Any], seconds: float = 0.6) -> float:
    """Returns the median time of about ``seconds`` of runs, warm, between events on the GPU."""
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
    return statistics.median(float(a.elapsed_time(b)) for a, b in pairwise(marks))


def _milliseconds_on_cpu(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) * 1e3


def reset_peak() -> None:
    """Frees cached memory and resets the peak memory."""
    if DEVICE == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_gb() -> float:
    """Returns the peak memory of tensors since :func:`reset_peak`."""
    return torch.cuda.max_memory_allocated() / 1e9 if DEVICE == "cuda" else 0.0


def pinned(values: Tensor) -> Tensor:
    """Copies the values to page-locked memory, which the GPU reads and writes directly."""
    return values.pin_memory() if DEVICE == "cuda" else values


def snr_db(expected: Tensor, got: Tensor) -> float:
    """Returns signal over error, dB; minus infinity if the error is not finite."""
    error = (expected.double() - got.double()).square().sum()
    if not torch.isfinite(error):
        return float("-inf")
    return float(10 * torch.log10(expected.double().square().sum() / error.clamp_min(1e-300)))


def ceilings() -> dict[str, float]:
    """Measures bytes per second of a copy, read plus written, and operations per second of a matrix
    product in bfloat16.
    """
    large = DEVICE == "cuda"

    def copy() -> float:
        source = torch.randn(1 << (29 if large else 16), device=DEVICE)
        target = torch.empty_like(source)
        return 2 * source.nbytes / milliseconds(lambda: target.copy_(source)) * 1e3

    n = 8192 if large else 64
    a, b = (torch.randn(n, n, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    copied, multiplied = copy(), 2 * n**3 / milliseconds(lambda: a @ b) * 1e3
    return {"copy bytes/s": copied, "bf16 operations/s": multiplied}
