"""Describes the machine, the versions and the background load of a measurement in one sentence.

    watch = Watch()
    ...                                       # measure
    load = background_load(watch.background_cores())
    page.append(f"{conditions('2 threads', 'torch')}; {load}; `python -m benchmarks.this`.")

Other programs slow a measurement down while it runs, so the load is measured during the
measurement, not before it: the busy time of all processors minus the time that this process and its
ended children used.
"""

from __future__ import annotations

import datetime
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path

EVERY_CORE = "a thread on every physical core"
"""ONNX Runtime's default."""
NAMES = {"onnxruntime": "ONNX Runtime", "pedalboard": "Pedalboard"}
STAT = Path("/proc/stat")


class Watch:
    """Measures the background load since it was created."""

    def __init__(self) -> None:
        self._start, self._background_s = time.perf_counter(), background_s()

    def background_cores(self) -> float:
        """Returns the mean number of cores that other programs kept busy; NaN if unknown.

        A child process counts as part of this process only after it has ended and was waited for.
        """
        elapsed = time.perf_counter() - self._start
        # The kernel counts in ticks of 10 ms, so a difference can be slightly negative.
        return max(0.0, background_s() - self._background_s) / elapsed


def background_s() -> float:
    """Returns the processor seconds since boot, minus those of this process and ended children."""
    if not STAT.exists():
        return float("nan")
    user, nice, system, _idle, _waiting, irq, soft_irq, stolen, *_ = map(
        int, STAT.read_text().splitlines()[0].split()[1:]
    )
    busy = (user + nice + system + irq + soft_irq + stolen) / os.sysconf("SC_CLK_TCK")
    return busy - sum(os.times()[:4])


def conditions(threads: str, *packages: str) -> str:
    """Describes the processor, its cores, the number of threads used, versions and the date."""
    versions = ", ".join(f"{NAMES.get(name, name)} {version(name)}" for name in packages)
    return f"{cpu()}, {os.cpu_count()} cores, {threads}; {versions}; {datetime.date.today()}"


def background_load(*cores: float) -> str:
    """Describes the range of the given values of :meth:`Watch.background_cores`.

    Processes of lower priority count too, and so does the time that the host gave to other virtual
    machines.
    """
    low, high = f"{min(cores):.1f}", f"{max(cores):.1f}"
    return (
        f"background load: {low if low == high else f'{low} to {high}'} of {os.cpu_count()} cores "
        "(other virtual machines included)"
    )


def cpu() -> str:
    """Returns the model of the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    for line in cpuinfo.read_text().splitlines() if cpuinfo.exists() else ():
        if line.startswith("model name"):
            return line.partition(": ")[2].strip()
    return platform.processor() or platform.machine()
