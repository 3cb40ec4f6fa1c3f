"""All sections of the benchmark on a GPU, and the report that they are written to."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.chip import Clock, ceilings
from benchmarks.gpu.compiled import time_compiled
from benchmarks.gpu.engines import Engines, time_onnxruntime, time_tensorrt
from benchmarks.gpu.network import Bench, Truth, check_network, time_network, time_others
from benchmarks.gpu.rows import Rows, describe_error, print_table
from benchmarks.gpu.scans import Kernel, check_scan, time_scans
from benchmarks.gpu.song import time_song
from bsmamba2_network import BSMamba2


class Report:
    """The tables measured so far, printed and written after each section."""

    def __init__(self, clock: Clock, path: Path | None, **contents: Any) -> None:
        self._clock, self._path = clock, path
        self.contents: dict[str, Any] = contents

    def section(self, title: str, measure: Callable[[], Rows], seconds: float = 0) -> None:
        """Measures a section if ``seconds`` are left.

        An exception becomes a row's note, so that later sections still run.
        """
        if self._clock.left_s() < seconds:
            rows: Rows = [{"what": title, "note": "no time left"}]
        else:
            try:
                rows = measure()
            except Exception as error:
                rows = [{"what": title, "note": describe_error(error)}]
        print_table(title, rows)
        self.contents[title] = rows
        self.write()

    def write(self) -> None:
        if self._path:
            self._path.write_text(json.dumps(self.contents, indent=1))

    def has_wrong_numbers(self) -> bool:
        """Returns whether a number is wrong, or missing from a section that checks numbers."""
        tables = {title: rows for title, rows in self.contents.items() if isinstance(rows, list)}
        return any(
            row.get("ok", not title.startswith("numbers")) is False
            for title, rows in tables.items()
            for row in rows
        )


def measure(
    report: Report, clock: Clock, net: BSMamba2, ours: Kernel, engines: Engines,
    prebuilt: list[Path], numbers_only: bool = False,
) -> None:  # fmt: skip
    """Runs every section, the most important first.

    Args:
        prebuilt: TensorRT engines that were built elsewhere.
    """
    report.section("numbers of the scan", lambda: check_scan(ours))
    ours.states = False
    truth = Truth(net, ours)
    report.section("numbers of the network", lambda: check_network(net, truth))
    if numbers_only:
        return
    report.contents["ceilings"] = highest = ceilings()
    print(f"\ncopy {highest['copy bytes/s'] / 1e12:.2f} TB/s, bf16 product "
          f"{highest['bf16 operations/s'] / 1e12:.0f} TFLOP/s")  # fmt: skip
    bench = Bench(net, ours, clock, highest, truth)
    report.section("song", lambda: time_song(bench), 60)
    report.section("network", lambda: time_network(bench), 60)
    report.section("network without our kernel", lambda: time_others(bench), 60)
    report.section("scan", lambda: time_scans(ours, highest), 45)

    def onnxruntime() -> Rows:
        engines.prepare(net, truth)
        torch.cuda.empty_cache()  # the next sections use the memory in other processes
        return time_onnxruntime(engines, clock)

    report.section("ONNX Runtime", onnxruntime, 60)
    report.section("TensorRT", lambda: time_tensorrt(engines, prebuilt, clock), 30)
    report.section("torch.compile", lambda: time_compiled(highest, engines.library, clock), 30)
