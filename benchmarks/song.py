"""``bsmamba2 separate`` on a real song: time and peak memory, with and without the kernel.

    python -m benchmarks.song            # a minute of the song; writes benchmarks/results/song.md
                                         # and the README's table

Each row is a separate process: its wall time from start to end, and its peak resident memory. The
stems are read back and must sum to the song. Linux; needs the extra cpu.
"""

from __future__ import annotations

import json
import os
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
from bsmamba2.formats.checkpoint import read_checkpoint
from bsmamba2.models.graph import find_graph

BEGIN, END = "<!-- benchmarks/song.py -->", "<!-- end -->"


def main() -> None:
    parser = argument_parser("song", __doc__)
    parser.add_argument(
        "--song", type=Path, help="A song. Default: the one that examples/real_song.sh fetches."
    )
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="The length to separate. Default: 60."
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        song = arguments.song or real_song(folder)
        audio, rate = soundfile.read(song, frames=int(arguments.seconds * 44100), dtype="float32")
        soundfile.write(folder / "song.wav", audio, rate, "FLOAT")
        cases = [("paper", "on"), ("paper", "off"), ("medium", "on"), ("small", "on")]
        watch = Watch()
        rows = [measure(folder, *case, len(audio) / rate) for case in cases]
        load = background_load(watch.background_cores())
    page = "\n".join(
        [
            "| size | parameters | scan | time | × real time | peak memory |",
            "|---|---|---|---|---|---|",
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


COMMAND = """
import pathlib, re, sys
from bsmamba2.cli import main
try:
    main()
finally:  # the peak memory of this process, imports and weights included
    status = pathlib.Path("/proc/self/status").read_text()
    print(re.search(r"VmHWM:\\s+(\\d+)", status)[1], file=sys.stderr)
"""


def measure(folder: Path, preset: str, kernel: str, seconds: float) -> str:
    """Separates the song in another process, checks the sum of its stems and returns the row."""
    weights = random_model(preset, folder)
    command = [sys.executable, "-c", COMMAND, "separate", str(folder / "song.wav"), "--overwrite"]
    command += ["-m", str(weights), "-o", str(folder), "--device", "cpu", "--json"]
    environment = os.environ | {"BSMAMBA2_KERNEL": kernel}
    start = time.perf_counter()
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    elapsed_s = time.perf_counter() - start
    outputs = json.loads(run.stdout)["outputs"]
    stems = sum(soundfile.read(path)[0] for path in outputs.values())
    np.testing.assert_allclose(stems, soundfile.read(folder / "song.wav")[0], atol=1e-6)
    parameters = find_graph(read_checkpoint(weights)).manifest.parameters / 1e6
    scan = "kernel" if kernel == "on" else "plain operators"
    peak = int(run.stderr.splitlines()[-1]) * 1024 / 1e9
    return (
        f"| {preset} | {parameters:.1f} M | {scan} | {elapsed_s:.1f} s | "
        f"{seconds / elapsed_s:.2f} | {peak:.2f} GB |"
    )


if __name__ == "__main__":
    main()
