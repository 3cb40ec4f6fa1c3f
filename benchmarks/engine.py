"""The engine's time next to its floor, PyTorch, plain ONNX Runtime and networks of the same size.

    python -m benchmarks.engine [--seconds 8] [--threads 2] [--only floor engine]

It measures the selected cases, by default all, which takes half an hour. Each measurement replaces
the older one in results/engine.json, and results/engine.md is written from everything in that file.

Each figure is measured in a separate process. After a warm-up on one second of noise (on the full
length if the network is compiled), one run on the full length is timed, and the peak resident
memory of the process is read. Every output of BSMamba2 is compared with PyTorch's. Needs Linux, the
extras cpu and export, and for the other networks ``pip install bs-roformer demucs``; networks that
are not installed are skipped.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np

from benchmarks.arguments import argument_parser
from benchmarks.floor import floor_s
from benchmarks.machine import Watch, background_load, conditions
from benchmarks.pages import RESULTS, ROOT
from bsmamba2.audio.array import Audio
from bsmamba2.audio.snr import snr_db
from bsmamba2.devices.device import CPU
from bsmamba2.devices.products import DEFAULT_SPEED, SPEEDS, products
from bsmamba2.engines.ort_engine import OrtEngine
from bsmamba2.formats.onnx_file import read_onnx
from bsmamba2.models.check import check_input

RATE = 44100
GRID = [(1.0, 2), (4.0, 2), (8.0, 2), (16.0, 2), (1.0, 1), (8.0, 1)]
ROWS = {
    "floor": "floor: the matrix products alone, in ONNX Runtime",
    "engine": "**bsmamba2: ONNX Runtime with the kernels**, float32",
    "exact": "**bsmamba2, `exact`**{products}",
    "fast": "**bsmamba2, `fast`**{products}",
    "portable": "ONNX Runtime, target `portable`, no kernels",
    "ort": "ONNX Runtime, target `ort` (LinearAttention)",
    "eager": "PyTorch, eager",
    "compiled": "PyTorch, `torch.compile` of every block",
    "roformer": "BS-RoFormer (bs-roformer), {parameters}, PyTorch",
    "demucs": "HT Demucs (demucs), {parameters}, four stems, PyTorch",
}
PACKAGES = {"roformer": "bs_roformer", "demucs": "demucs"}
OURS = ("engine", "exact", "fast", "portable", "ort", "eager", "compiled")
LEAST_DB = {"exact": 95, "fast": 20}
"""The SNR that a row must have, if it is not 90 dB."""

Run = Callable[[Audio], Audio]
Figures = dict[str, dict[str, dict[str, Any]]]
"""Figures, and the conditions of their measurement, by case and row."""


def main() -> None:
    parser = argument_parser("engine", __doc__)
    parser.add_argument("--seconds", type=float, nargs="+", help="Default: 1, 4, 8 and 16.")
    parser.add_argument("--threads", type=int, nargs="+", help="Default: 2, and 1 for 1 and 8 s.")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=ROWS,
        default=list(ROWS),
        help="The rows to measure. Default: all.",
    )
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        name, length, count, path = arguments.measure
        print(json.dumps(measure(name, float(length), int(count), Path(path))))
        return
    grid = [
        (seconds, threads)
        for seconds, threads in GRID
        if seconds in (arguments.seconds or [seconds])
        and threads in (arguments.threads or [threads])
    ]
    if not grid:
        parser.error(f"--seconds and --threads must be one of {GRID}")
    from benchmarks import networks

    rows = [row for row in arguments.only if importlib.util.find_spec(PACKAGES.get(row, "torch"))]
    file = RESULTS / "engine.json"
    figures: Figures = json.loads(file.read_text()) if file.is_file() else {}
    about = conditions("as many threads as the table says", "onnxruntime", "torch")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        networks.prepare(folder, {seconds for seconds, _ in grid}, noise, "ort" in rows)
        for seconds, threads in grid:
            for row in rows:
                if is_available(row):
                    measured = measure_in_process(row, seconds, threads, folder)
                else:
                    measured = {}
                name = f"{seconds:g} s, {threads} thread{'s' * (threads > 1)}"
                figures.setdefault(name, {})[row] = {**measured, "about": about}
                figures = dict(sorted(figures.items(), key=sort_key))
                file.write_text(json.dumps(figures, indent=1) + "\n")
    text = page(figures, networks.multiply_adds)
    print(text)
    (RESULTS / "engine.md").write_text(text + "\n")


def page(figures: Figures, multiply_adds: Callable[[int], float]) -> str:
    return "\n".join(["# The engine", "", *tables(figures), "", *notes(figures, multiply_adds)])


def sort_key(item: tuple[str, Any]) -> tuple[int, float]:
    """Sorts the cases by threads, most first, then by length."""
    seconds, _, threads, _ = item[0].replace(",", "").split()
    return -int(threads), float(seconds)


def is_available(row: str) -> bool:
    """Whether this processor has products of its own for a speed; other rows run everywhere."""
    return row not in SPEEDS or products(row) != "float32"


def measure_in_process(name: str, seconds: float, threads: int, folder: Path) -> dict[str, Any]:
    """Runs :func:`measure` in a new process."""
    print(f"{seconds:g} s, {threads} threads: {name}", file=sys.stderr)
    command = [sys.executable, "-m", "benchmarks.engine"]
    command += ["--measure", name, str(seconds), str(threads), str(folder)]
    variables = {**os.environ, **({} if name in SPEEDS else {"BSMAMBA2_PRODUCTS": "float32"})}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT, env=variables
    )
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def measure(name: str, seconds: float, threads: int, folder: Path) -> dict[str, Any]:
    """Measures one row and returns its figures."""
    audio = noise(seconds)
    figures: dict[str, Any] = {}
    if name in SPEEDS:
        figures["products"] = products(name)
    if name == "floor":
        needed = json.loads((folder / f"{seconds:g}.json").read_text())
        watch = Watch()
        figures["s"] = floor_s(needed, threads)
        figures["background_cores"] = watch.background_cores()
    else:
        run, figures["parameters"] = runner(name, threads, folder)
        # Compiled code runs only the length that it was compiled for.
        run(audio if name == "compiled" else noise(1.0))
        watch, start = Watch(), time.perf_counter()
        stems = run(audio)
        figures["s"] = time.perf_counter() - start
        figures["background_cores"] = watch.background_cores()
        if name in OURS:
            figures["snr_db"] = snr_db(np.load(folder / f"{seconds:g}.npy"), stems)
            assert figures["snr_db"] >= LEAST_DB.get(name, 90), figures
    status = Path("/proc/self/status").read_text()
    peak = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert peak
    figures["peak_gb"] = int(peak[1]) * 1024 / 1e9
    return figures


def runner(name: str, threads: int, folder: Path) -> tuple[Run, float]:
    """Returns a function that separates (channels, samples), and its number of parameters."""
    if name not in ("engine", "portable", "ort", *SPEEDS):
        from benchmarks import networks  # imported here to keep torch out of other rows' memory

        return networks.runner(name, threads)
    path = folder / ("ort.onnx" if name == "ort" else "portable.onnx")
    kernel, speed = name in ("engine", *SPEEDS), name if name in SPEEDS else DEFAULT_SPEED
    engine = OrtEngine(read_onnx(path), CPU, threads=threads, kernel=kernel, speed=speed)
    return engine.run, engine.manifest.parameters


def noise(seconds: float) -> Audio:
    return check_input(0, 2, round(seconds * RATE))


def tables(figures: Figures) -> list[str]:
    """Returns the table of times and memory, and the table of times relative to the engine's."""
    heads = [f"| | {' | '.join(figures)} |", f"|---|{'---|' * len(figures)}"]
    lines, ratios = list(heads), list(heads)
    for row, name in ROWS.items():
        cases = [case.get(row) for case in figures.values()]
        known = next((case for case in cases if case), None)
        if known is None:
            continue
        run = f", {known['products']}" if "products" in known else ""
        label = name.format(parameters=f"{known.get('parameters', 0) / 1e6:.1f} M", products=run)
        cells = [time_and_memory(case) for case in cases]
        lines.append(f"| {label} | {' | '.join(cells)} |")
        times = [
            f"{case[row]['s'] / case['engine']['s']:.2f}×"
            if {row, "engine"} <= set(case) and "s" in case[row]
            else ""
            for case in figures.values()
        ]
        ratios.append(f"| {label} | {' | '.join(times)} |")
    return [*lines, "", "Times relative to the engine's:", "", *ratios]


def time_and_memory(case: dict[str, Any] | None) -> str:
    """Returns the cell of one measurement."""
    if case is None:
        return ""
    return f"{case['s']:.2f} s, {case['peak_gb']:.2f} GB" if "s" in case else "not available here"


def notes(figures: Figures, multiply_adds: Callable[[int], float]) -> list[str]:
    """Returns the paragraphs below the tables."""
    rows = [(row, each) for case in figures.values() for row, each in case.items() if "s" in each]
    measured = [each for _, each in rows]
    agreements = [each["snr_db"] for row, each in rows if row != "fast" and "snr_db" in each]
    lowest_db = min(agreements, default=0.0)
    fast_db = [each["snr_db"] for row, each in rows if row == "fast"]
    fast = f"; `fast` to {min(fast_db):.0f} dB" if fast_db else ""
    seconds = sorted({float(case.partition(" ")[0]) for case in figures})
    counts = ", ".join(f"{multiply_adds(round(s * RATE)) / 1e9:.0f} for {s:g} s" for s in seconds)
    cores = [each["background_cores"] for each in measured if "background_cores" in each]
    known = len(cores) == len(measured)
    load = background_load(*cores) if known else "background load: not measured"
    return [
        "The paper's size (48.1 M parameters), stereo noise, float32, random weights; the time of "
        "one run after a warm-up, and the peak memory of the process, imports and weights "
        f"included. BSMamba2's outputs agree with PyTorch's to {lowest_db:.0f} dB or better"
        f"{fast}. `exact` and `fast` use the products that are named; without a name this "
        "processor has none of them, and both are float32. "
        f"Multiply-adds of BSMamba2, in billions: {counts}.",
        "",
        f"{'; '.join(sorted({each['about'] for each in measured}))}; {load}. "
        "`python -m benchmarks.engine`.",
    ]


if __name__ == "__main__":
    main()
