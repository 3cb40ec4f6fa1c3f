"""The GPU that is measured: its clock, and what it can do at most."""

from __future__ import annotations

import statistics
import sys
import time
import traceback
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

DEVICE = "cuda"
TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
RATE = 44100

Rows = list[dict[str, Any]]
"""A table: a row names its columns, and says in ``note`` why there are no figures."""


def failed(error: Exception) -> str:
    """Why a row has no figures, in a line; the whole of it goes to standard error."""
    traceback.print_exception(error, file=sys.stderr)
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


class Clock:
    """What is left of the time that was asked for."""

    def __init__(self, minutes: float) -> None:
        self.end = time.monotonic() + minutes * 60

    def left(self) -> float:
        return self.end - time.monotonic()


def milliseconds(run: Callable[[], Any], seconds: float = 0.6) -> float:
    """The median time of a run on the GPU."""
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


def snr_db(wanted: Tensor, got: Tensor) -> float:
    """Signal over error; minus infinite where NaN came."""
    error = (wanted.double() - got.double()).square().sum()
    if not torch.isfinite(error):
        return float("-inf")
    return float(10 * torch.log10(wanted.double().square().sum() / error.clamp_min(1e-300)))


def ceilings() -> dict[str, float]:
    """Bytes a second of a copy, read and written; operations a second of a product in bfloat16."""

    def copy() -> float:
        source = torch.randn(1 << 29, device=DEVICE)
        target = torch.empty_like(source)
        return 2 * source.nbytes / milliseconds(lambda: target.copy_(source)) * 1e3

    a, b = (torch.randn(8192, 8192, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    copied, multiplied = copy(), 2 * 8192**3 / milliseconds(lambda: a @ b) * 1e3
    return {"copy bytes/s": copied, "bf16 operations/s": multiplied}
