"""What a figure was taken on, in one true sentence.

    watch = Watch()
    ...                                       # measure
    page.append(f"{about('2 threads', 'torch')}; {busy(watch.others())}; `python this.py`.")

Other programs slow a measurement down while it runs, so they are counted then and not before it:
all time that the processors were busy, less what this process and its ended children used.
"""

from __future__ import annotations

import datetime
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path

EVERY_CORE = "a thread on every physical core"
"""What ONNX Runtime takes unless told otherwise."""
NAMES = {"onnxruntime": "ONNX Runtime", "pedalboard": "Pedalboard"}
STAT = Path("/proc/stat")


class Watch:
    """Counts what others keep the processors busy with, from now on."""

    def __init__(self) -> None:
        self._start, self._others = time.perf_counter(), others_s()

    def others(self) -> float:
        """The mean number of cores that others kept busy so far; NaN where it cannot be known.

        Children count as this process's own once they have ended and were waited for.
        """
        lasted = time.perf_counter() - self._start
        # The kernel counts in ticks of 10 ms.
        return max(0.0, others_s() - self._others) / lasted


def others_s() -> float:
    """Processor seconds of all processes but this one and its ended children, since the start."""
    if not STAT.exists():
        return float("nan")
    user, nice, system, _idle, _waiting, irq, soft_irq, stolen, *_ = map(
        int, STAT.read_text().splitlines()[0].split()[1:]
    )
    busy = (user + nice + system + irq + soft_irq + stolen) / os.sysconf("SC_CLK_TCK")
    return busy - sum(os.times()[:4])


def about(threads: str, *packages: str) -> str:
    """Processor, cores, how many threads were used, versions and date."""
    versions = ", ".join(f"{NAMES.get(name, name)} {version(name)}" for name in packages)
    return f"{cpu()}, {os.cpu_count()} cores, {threads}; {versions}; {datetime.date.today()}"


def busy(*others: float) -> str:
    """How much of the machine others had, where each figure is of :meth:`Watch.others`."""
    low, high = f"{min(others):.1f}", f"{max(others):.1f}"
    return (
        f"meanwhile others kept {low if low == high else f'{low} to {high}'} of {os.cpu_count()} "
        "cores busy, processes of lower priority and the host's other guests included"
    )


def cpu() -> str:
    """The processor's model."""
    described = Path("/proc/cpuinfo")
    for line in described.read_text().splitlines() if described.exists() else ():
        if line.startswith("model name"):
            return line.partition(": ")[2].strip()
    return platform.processor() or platform.machine()
