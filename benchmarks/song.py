"""What a person waits for: ``bsmamba2 separate`` on a 4-minute song, by model and speed.

    python -m benchmarks.song            # writes benchmarks/results/song.md and the README's table

Each row is a separate process: its wall time from start to end, and its peak resident memory. The
stems are read back and must sum to the song. A speed has a row of its own if the processor has
products for it. Linux; needs the extra cpu; with --seconds 60 it takes four minutes on two cores
without AVX-512.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from benchmarks.arguments import argument_parser
from benchmarks.machine import EVERY_CORE, Watch, background_load, conditions
from benchmarks.pages import RESULTS, ROOT, replace_in_readme
from benchmarks.weights import random_model
from bsmamba2.devices.products import DEFAULT_SPEED, SPEEDS, products
from bsmamba2.formats.checkpoint import read_checkpoint
from bsmamba2.models.graph import find_graph

BEGIN, END = "<!-- benchmarks/song.py -->", "<!-- end -->"
MODELS = {"small": "`small`", "medium": "medium", "paper": "paper, as `bs_mamba2_vocals`"}
"""The sizes to measure, and what the table calls them."""


def main() -> None:
    parser = argument_parser("song", __doc__)
    parser.add_argument(
        "--song", type=Path, help="A song. Default: the one that examples/real_song.sh fetches."
    )
    parser.add_argument(
        "--seconds", type=float, default=240.0, help="The length to separate. Default: 240."
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        song = arguments.song or real_song(folder)
        rate = write_excerpt(song, arguments.seconds, folder / "song.wav")
        watch = Watch()
        rows = [
            measure(folder, size, speed, arguments.seconds)
            for size in MODELS
            for speed in SPEEDS
            if speed == DEFAULT_SPEED or products(speed) != products(DEFAULT_SPEED)
        ]
        load = background_load(watch.background_cores())
    page = "\n".join(
        [
            "| model | parameters | speed | products | time (min:s) | × real time | peak memory |",
            "|---|---|---|---|---|---|---|",
            *rows,
            "",
            f"{arguments.seconds:g} s of a stereo song at {rate} Hz, WAV to two WAVs, whole "
            f"process, random weights; {conditions(EVERY_CORE, 'onnxruntime')}; {load}; "
            f"`python -m benchmarks.song --seconds {arguments.seconds:g}`.",
        ]
    )
    (RESULTS / "song.md").write_text(f"# Separating a song, file to files\n\n{page}\n")
    replace_in_readme(BEGIN, END, page)
    print(page)


def real_song(folder: Path) -> Path:
    """Fetches the song of the example."""
    script = ["bash", str(ROOT / "examples/real_song.sh"), str(folder)]
    return Path(subprocess.run(script, check=True, capture_output=True, text=True).stdout.strip())


def write_excerpt(song: Path, seconds: float, path: Path) -> int:
    """Writes the song, repeated or cut to a length, as float WAV, and returns its sample rate."""
    audio, rate = soundfile.read(song, dtype="float32", always_2d=True)
    wanted = int(seconds * rate)
    soundfile.write(path, np.tile(audio, (-(-wanted // len(audio)), 1))[:wanted], rate, "FLOAT")
    return int(rate)


COMMAND = """
import pathlib, re, sys
from bsmamba2.cli import main
try:
    main()
finally:  # the peak memory of this process, imports and weights included
    status = pathlib.Path("/proc/self/status").read_text()
    print(re.search(r"VmHWM:\\s+(\\d+)", status)[1], file=sys.stderr)
"""


def measure(folder: Path, size: str, speed: str, seconds: float) -> str:
    """Separates the song in another process, checks the sum of its stems and returns the row."""
    weights = random_model(size, folder)
    command = [sys.executable, "-c", COMMAND, "separate", str(folder / "song.wav"), "--overwrite"]
    command += ["-m", str(weights), "-o", str(folder), "--device", "cpu", "--speed", speed]
    start = time.perf_counter()
    run = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    elapsed_s = time.perf_counter() - start
    outputs = json.loads(run.stdout)["outputs"]
    stems = sum(soundfile.read(path)[0] for path in outputs.values())
    np.testing.assert_allclose(stems, soundfile.read(folder / "song.wav")[0], atol=1e-6)
    parameters = find_graph(read_checkpoint(weights)).manifest.parameters / 1e6
    peak = int(run.stderr.splitlines()[-1]) * 1024 / 1e9
    minutes, rest = divmod(round(elapsed_s), 60)
    return (
        f"| {MODELS[size]} | {parameters:.1f} M | {speed} | {products(speed)} | "
        f"{minutes}:{rest:02d} | {seconds / elapsed_s:.2f} | {peak:.2f} GB |"
    )


if __name__ == "__main__":
    main()
