"""The engine beside its floor, PyTorch, plain ONNX Runtime and networks of the same size.

    python benchmarks/engine.py [--seconds 8] [--threads 2] [--only floor engine]

Every case alone or all of them, which takes half an hour. What is measured is kept in
results/engine.json, in place of an older measurement of the same, and results/engine.md is written
of all that is there.

Each figure is a process of its own: one run on a second of noise to warm up (what is compiled, on
the whole), then the time of one run on the whole, and the largest resident size of the process.
All of BSMamba2's answers are compared with PyTorch's. Linux; needs the extras cpu and export, and
for the networks of others ``pip install bs-roformer demucs``: what is not installed is left out.
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
from floor import floor_s
from machine import Watch, about, busy

from bsmamba2.audio.array import Audio
from bsmamba2.audio.snr import snr_db
from bsmamba2.engines.ort_engine import OrtEngine
from bsmamba2.formats.onnx_file import read_onnx
from bsmamba2.models.check import check_input

RESULT = Path(__file__).parent / "results/engine.md"
RATE = 44100
GRID = [(1.0, 2), (4.0, 2), (8.0, 2), (16.0, 2), (1.0, 1), (8.0, 1)]
ROWS = {
    "floor": "floor: its products alone, in ONNX Runtime",
    "engine": "**bsmamba2: ONNX Runtime with the kernels**",
    "portable": "ONNX Runtime, target `portable`, no kernels",
    "ort": "ONNX Runtime, target `ort` (LinearAttention)",
    "eager": "PyTorch, eager",
    "compiled": "PyTorch, `torch.compile` of every block",
    "roformer": "BS-RoFormer of bs-roformer, {parameters}, PyTorch",
    "demucs": "HT Demucs of demucs, {parameters}, four stems, PyTorch",
}
NEEDS = {"roformer": "bs_roformer", "demucs": "demucs"}
OURS = ("engine", "portable", "ort", "eager", "compiled")

Run = Callable[[Audio], Audio]
Found = dict[str, dict[str, dict[str, Any]]]
"""By the case and the row: figures, and when and on what they were taken."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, nargs="+", help="Default: 1, 4, 8 and 16.")
    parser.add_argument("--threads", type=int, nargs="+", help="Default: 2, and 1 for 1 and 8 s.")
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        name, seconds, threads, folder = asked.measure
        print(json.dumps(measure(name, float(seconds), int(threads), Path(folder))))
        return
    grid = [
        (seconds, threads)
        for seconds, threads in GRID
        if seconds in (asked.seconds or [seconds]) and threads in (asked.threads or [threads])
    ]
    if not grid:
        parser.error(f"there is no such case; there are {GRID} (seconds, threads)")
    import networks

    rows = [row for row in asked.only if importlib.util.find_spec(NEEDS.get(row, "torch"))]
    kept = Path(f"{RESULT.with_suffix('')}.json")
    found: Found = json.loads(kept.read_text()) if kept.is_file() else {}
    used = about("as many threads as the table says", "onnxruntime", "torch")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        networks.prepare(folder, {seconds for seconds, _ in grid}, noise, "ort" in rows)
        for seconds, threads in grid:
            for row in rows:
                figures = process(row, seconds, threads, folder)
                case = found.setdefault(f"{seconds:g} s, {threads} thread{'s' * (threads > 1)}", {})
                case[row] = {**figures, "about": used}
                found = dict(sorted(found.items(), key=place))
                kept.write_text(json.dumps(found, indent=1) + "\n")
    page = "\n".join(["# The engine", "", *table(found), "", *notes(found, networks.multiply_adds)])
    print(page)
    RESULT.write_text(page + "\n")


def place(item: tuple[str, Any]) -> tuple[int, float]:
    """Of a case in the table: most threads first, then by length."""
    seconds, _, threads, _ = item[0].replace(",", "").split()
    return -int(threads), float(seconds)


def process(name: str, seconds: float, threads: int, folder: Path) -> dict[str, float]:
    """One measurement in a process of its own."""
    print(f"{seconds:g} s, {threads} threads: {name}", file=sys.stderr)
    command = [sys.executable, __file__, "--measure", name, str(seconds), str(threads), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr}")
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


def measure(name: str, seconds: float, threads: int, folder: Path) -> dict[str, float]:
    audio = noise(seconds)
    found: dict[str, float] = {}
    if name == "floor":
        products = json.loads((folder / f"{seconds:g}.json").read_text())
        watch = Watch()
        found["s"] = floor_s(products, threads)
        found["others"] = watch.others()
    else:
        run, found["parameters"] = runner(name, threads, folder)
        # What is compiled is compiled for one length.
        run(audio if name == "compiled" else noise(1.0))
        watch, start = Watch(), time.perf_counter()
        stems = run(audio)
        found["s"], found["others"] = time.perf_counter() - start, watch.others()
        if name in OURS:
            found["snr_db"] = snr_db(np.load(folder / f"{seconds:g}.npy"), stems)
            assert found["snr_db"] >= 90, found
    status = Path("/proc/self/status").read_text()
    peak = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert peak
    found["peak_gb"] = int(peak[1]) * 1024 / 1e9
    return found


def runner(name: str, threads: int, folder: Path) -> tuple[Run, float]:
    """How a row separates (channels, samples), and its parameters."""
    if name not in ("engine", "portable", "ort"):
        import networks  # here, so that no other row has torch in its memory

        return networks.runner(name, threads)
    path = folder / ("ort.onnx" if name == "ort" else "portable.onnx")
    engine = OrtEngine(read_onnx(path), "cpu", threads=threads, kernel=name == "engine")
    return engine.run, engine.manifest.parameters


def noise(seconds: float) -> Audio:
    return check_input(0, 2, round(seconds * RATE))


def table(found: Found) -> list[str]:
    heads = [f"| | {' | '.join(found)} |", f"|---|{'---|' * len(found)}"]
    lines, ratios = list(heads), list(heads)
    for row, name in ROWS.items():
        cases = [case.get(row) for case in found.values()]
        known = next((case for case in cases if case), None)
        if known is None:
            continue
        label = name.format(parameters=f"{known.get('parameters', 0) / 1e6:.1f} M")
        cells = [f"{c['s']:.2f} s, {c['peak_gb']:.2f} GB" if c else "" for c in cases]
        lines.append(f"| {label} | {' | '.join(cells)} |")
        times = [
            f"{case[row]['s'] / case['engine']['s']:.2f}×" if {row, "engine"} <= set(case) else ""
            for case in found.values()
        ]
        ratios.append(f"| {label} | {' | '.join(times)} |")
    return [*lines, "", "How many times the engine's time:", "", *ratios]


def notes(found: Found, multiply_adds: Callable[[int], float]) -> list[str]:
    measured = [figures for case in found.values() for figures in case.values()]
    least = min((each["snr_db"] for each in measured if "snr_db" in each), default=0.0)
    seconds = sorted({float(case.partition(" ")[0]) for case in found})
    counts = ", ".join(f"{multiply_adds(round(s * RATE)) / 1e9:.0f} for {s:g} s" for s in seconds)
    counted = [each["others"] for each in measured if "others" in each]
    others = busy(*counted) if len(counted) == len(measured) else "others were not counted"
    return [
        "The paper's size (48.1 M parameters), stereo noise, float32, random weights; the time of "
        "one run after a shorter one, and the peak memory of the process, imports and weights "
        f"included. BSMamba2's answers agree with PyTorch to {least:.0f} dB or better. Its "
        f"multiply-adds, in G: {counts}.",
        "",
        f"{'; '.join(sorted({each['about'] for each in measured}))}; {others}. "
        "`python benchmarks/engine.py`.",
    ]


if __name__ == "__main__":
    main()
