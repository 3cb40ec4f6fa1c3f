"""Everything that a GPU is wanted for, in one run: first the numbers, then the times.

    python benchmarks/gpu.py [--library PATH] [--graphs FOLDER] [--engine PATH]... [--json gpu.json]

Needs torch and NVIDIA's driver; from a checkout without an installed bsmamba2:

    cmake -S . -B build && cmake --build build --parallel
    PYTHONPATH=runtime:network python benchmarks/gpu.py \\
        --library build/runtime/native/libbsmamba2_ort.so

ONNX Runtime in bf16 and with its own scan needs graphs that ``python benchmarks/gpu_graphs.py
FOLDER`` makes on any machine; TensorRT needs the package onnx here, or engines built elsewhere.

No network is used. A row whose package is missing says so, as does one that no time was left for.
Weights and signals are random. Shares are of what the chip was measured to do: copies of large
memory, and products of large matrices in bfloat16; of the network they are of its products with
weights alone. Every time is the median of runs between events on the GPU, after a warm-up, and of
ONNX Runtime and TensorRT from host memory to host memory; answers are compared with float32 by the
plain scan first. The exit status is 1 where a number is wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from gpu_chip import Clock, ceilings, exact_float32
from gpu_compiled import time_compiled
from gpu_engines import Engines, time_onnxruntime, time_tensorrt
from gpu_network import Bench, Truth, check_network, time_network, time_others
from gpu_rows import Rows, failed, show
from gpu_scans import Kernel, check_scan, time_scans
from gpu_song import time_song

from bsmamba2.devices import cuda, kernel
from bsmamba2_network import BSMamba2
from bsmamba2_network.scan import mamba2_scan


class Report:
    """The tables so far, printed and written as they come."""

    def __init__(self, clock: Clock, path: Path | None, **about: Any) -> None:
        self._clock, self._path = clock, path
        self.found: dict[str, Any] = about

    def section(self, title: str, make: Callable[[], Rows], seconds: float = 0) -> None:
        """A failure of one part must not cost the others their time."""
        if self._clock.left() < seconds:
            rows: Rows = [{"what": title, "note": "no time left"}]
        else:
            try:
                rows = make()
            except Exception as error:
                rows = [{"what": title, "note": failed(error)}]
        self.found[title] = show(title, rows)
        self.write()

    def write(self) -> None:
        if self._path:
            self._path.write_text(json.dumps(self.found, indent=1))

    def wrong(self) -> bool:
        """Whether a number is; of the first sections all must be there."""
        tables = {title: rows for title, rows in self.found.items() if isinstance(rows, list)}
        return any(
            row.get("ok", not title.startswith("numbers")) is False
            for title, rows in tables.items()
            for row in rows
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--library", type=Path, default=kernel.library())
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--json", type=Path, help="Where to write all figures.")
    parser.add_argument("--numbers-only", action="store_true", help="Check, and time nothing.")
    parser.add_argument("--graphs", type=Path, help="What benchmarks/gpu_graphs.py wrote.")
    parser.add_argument("--engine", type=Path, action="append", default=[],
                        help="Of TensorRT, trusted, with its JSON beside it.")  # fmt: skip
    asked = parser.parse_args()
    if not torch.cuda.is_available():
        parser.exit(2, "benchmarks/gpu.py needs an NVIDIA GPU that PyTorch can use\n")
    if asked.library is None:
        parser.error("the native library is not installed: --library names one built elsewhere")
    for path in (asked.graphs, *asked.engine):
        if path and not path.exists():
            parser.error(f"there is no {path}")
    clock = Clock(asked.minutes)
    exact_float32()
    ours = Kernel(cuda.load(asked.library))
    mamba2_scan.register_kernel("cuda")(ours)
    card = torch.cuda.get_device_properties(0)
    about = {
        "gpu": card.name, "compute": f"{card.major}.{card.minor}", "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip
    print(", ".join(f"{name} {value}" for name, value in about.items()), flush=True)
    report = Report(clock, asked.json, about=about)
    net = BSMamba2.untrained("paper").eval().cuda()
    with tempfile.TemporaryDirectory() as scratch:
        engines = Engines("paper", Path(scratch), asked.graphs, asked.library.absolute())
        measure(report, clock, net, ours, engines, asked.engine, asked.numbers_only)
    sys.exit(report.wrong())


def measure(
    report: Report, clock: Clock, net: BSMamba2, ours: Kernel, engines: Engines,
    given: list[Path], numbers_only: bool = False,
) -> None:  # fmt: skip
    """Every section, most wanted first."""
    report.section("numbers of the scan", lambda: check_scan(ours))
    ours.states = False
    truth = Truth(net, ours)
    report.section("numbers of the network", lambda: check_network(net, truth))
    if numbers_only:
        return
    report.found["ceilings"] = most = ceilings()
    print(f"\ncopy {most['copy bytes/s'] / 1e12:.2f} TB/s, bf16 product "
          f"{most['bf16 operations/s'] / 1e12:.0f} TFLOP/s")  # fmt: skip
    bench = Bench(net, ours, clock, most, truth)
    report.section("song", lambda: time_song(bench), 60)
    report.section("network", lambda: time_network(bench), 60)
    report.section("network without our kernel", lambda: time_others(bench), 60)
    report.section("scan", lambda: time_scans(ours, most), 45)

    def onnxruntime() -> Rows:
        engines.prepare(net, truth)
        torch.cuda.empty_cache()  # the card's memory is for other processes now
        return time_onnxruntime(engines, clock)

    report.section("ONNX Runtime", onnxruntime, 60)
    report.section("TensorRT", lambda: time_tensorrt(engines, given, clock), 30)
    report.section("torch.compile", lambda: time_compiled(most, engines.library, clock), 30)


if __name__ == "__main__":
    main()
