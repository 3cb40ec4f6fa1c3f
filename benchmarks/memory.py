"""Memory and time against the length of a file.

    python -m benchmarks.memory [--minutes 5 60]

Separates songs of noise with ``bsmamba2 separate`` and a model of size tiny with random weights,
each in a separate process. The resident memory of the process is read every half second. The peak
for the longest song must be at most 1.1 times the peak for the shortest. Writes
benchmarks/results/memory.md and memory.svg. Linux; needs the extra cpu.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np
import soundfile

from benchmarks.arguments import argument_parser
from benchmarks.machine import EVERY_CORE, Watch, background_load, conditions
from benchmarks.pages import RESULTS
from benchmarks.weights import random_model

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 720, 320, 60, 20, 40
COLOURS = ("#1f6f8b", "#d1495b", "#66a182", "#edae49")

Curve = list[tuple[float, float]]
"""Pairs of seconds since the start and MB of resident memory."""


def main() -> None:
    parser = argument_parser("memory", __doc__)
    parser.add_argument(
        "--minutes",
        type=int,
        nargs="+",
        default=[5, 20, 60],
        help="The lengths of the songs. Default: 5, 20 and 60.",
    )
    lengths = sorted(parser.parse_args().minutes)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = random_model("tiny", folder)
        watch = Watch()
        runs = {minutes: measure(model, minutes) for minutes in lengths}
        load = background_load(watch.background_cores())
    rows = [row(minutes, runs[minutes], lengths[0], runs[lengths[0]]) for minutes in lengths]
    page = "\n".join(
        [
            "# Memory against song length",
            "",
            "![Resident memory over time](memory.svg)",
            "",
            "| song | peak memory | relative to the shortest | time | time per minute, relative |",
            "|---|---|---|---|---|",
            *rows,
            "",
            "From 16-bit stereo FLAC at 44100 Hz to two FLACs; size tiny, random weights; memory "
            f"and time of the whole process; {conditions(EVERY_CORE, 'onnxruntime')}; {load}; "
            f"`python -m benchmarks.memory --minutes {' '.join(map(str, lengths))}`.",
            "",
        ]
    )
    (RESULTS / "memory.md").write_text(page)
    (RESULTS / "memory.svg").write_text("\n".join(plot(runs)) + "\n")
    print(page)
    assert peak(runs[lengths[-1]]) <= 1.1 * peak(runs[lengths[0]]), "memory grows with the song"


def measure(model: Path, minutes: int) -> Curve:
    """Separates this many minutes of noise and samples the memory of the process."""
    folder = model.parent
    song = folder / f"{minutes}.flac"
    minute = np.random.default_rng(minutes).uniform(-0.1, 0.1, (60 * 44100, 2))
    with soundfile.SoundFile(song, "w", 44100, 2, "PCM_16") as file:
        for _ in range(minutes):
            file.write(minute)
    command = [sys.executable, "-m", "bsmamba2", "separate", str(song), "--device", "cpu"]
    command += ["-m", str(model), "-o", str(folder / "out")]
    environment = os.environ | {"BSMAMBA2_CACHE": str(folder / "cache")}
    start = time.perf_counter()
    curve: Curve = []
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment) as process:
        status = Path(f"/proc/{process.pid}/status")
        for k in count(1):
            if resident := re.search(r"VmRSS:\s+(\d+)", status.read_text()):
                curve.append((time.perf_counter() - start, int(resident[1]) * 1024 / 1e6))
            try:
                process.wait(max(0, start + 0.5 * k - time.perf_counter()))
                break
            except subprocess.TimeoutExpired:
                continue
    assert process.returncode == 0
    for path in (song, *(folder / "out").glob("*.flac")):
        path.unlink()
    return curve


def row(minutes: int, curve: Curve, shortest_minutes: int, shortest: Curve) -> str:
    per_minute = (curve[-1][0] / minutes) / (shortest[-1][0] / shortest_minutes)
    return (
        f"| {minutes} min | {peak(curve):.0f} MB | {peak(curve) / peak(shortest):.2f} | "
        f"{curve[-1][0]:.0f} s | {per_minute:.2f} |"
    )


def peak(curve: Curve) -> float:
    return max(megabytes for _, megabytes in curve)


def plot(runs: dict[int, Curve]) -> Iterator[str]:
    """Plots the curves over the fraction of the run, as SVG."""
    top = 1.2 * max(peak(curve) for curve in runs.values())
    inner = HEIGHT - TOP - BOTTOM
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">'
    )
    yield f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>'
    for k in range(5):
        y = TOP + inner * k / 4
        yield f'<line x1="{LEFT}" x2="{WIDTH - 20}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>'
        yield (
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{top * (1 - k / 4):.0f}</text>'
        )
    yield f'<text x="{LEFT}" y="{TOP - 6}">MB resident</text>'
    low = HEIGHT - 12
    yield f'<text x="{WIDTH - 20}" y="{low}" text-anchor="end">fraction of the run</text>'
    for k, ((minutes, curve), colour) in enumerate(zip(runs.items(), COLOURS, strict=False)):
        points = " ".join(
            f"{LEFT + (WIDTH - 20 - LEFT) * seconds / curve[-1][0]:.1f},"
            f"{TOP + inner * (1 - megabytes / top):.1f}"
            for seconds, megabytes in curve
        )
        yield f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
        yield f'<text x="{LEFT + 10 + 80 * k}" y="{low}" fill="{colour}">{minutes} min</text>'
    yield "</svg>"


if __name__ == "__main__":
    main()
