"""The first 15 minutes on a card, in order of value: numbers, sanitizer, profile, benchmark.

    python -m benchmarks.gpu.first_minutes [--minutes 15] [--output FOLDER] [--graphs FOLDER]

Every step is a process with a time limit. A step that fails, hangs, or whose tool is missing costs
only its own entry. ``report.md`` is written after each step, so it always holds what came back.
``--dry-run LIBRARIES`` runs the same steps over stand-ins for NVIDIA's libraries, in a folder that
``tests/gpu/stand_in/build.py`` made: it tests the steps, not the card.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.pages import ROOT

TAIL_LINES = 60
"""Lines of a step's output that the report keeps; the whole output is in a file of its own."""
SONG_SECONDS = 30
KERNELS = "regex:prepare|advance|normalise|residual"


@dataclass(frozen=True)
class Step:
    """A command of the report."""

    title: str
    command: list[str]
    seconds: float
    """Its time limit."""


def steps(folder: Path, graphs: Path | None) -> list[Step]:
    """Returns all steps, the most important first."""
    python = [sys.executable, "-m"]
    bench = [*python, "benchmarks.gpu"]
    numbers = [*bench, "--numbers-only"]
    song = str(folder / "song.wav")
    separate = [*python, "bsmamba2", "separate", song, "--device", "cuda:0", "--overwrite"]
    sanitizer = ["compute-sanitizer", "--error-exitcode", "1", "--tool"]
    counters = ["ncu", "--set", "basic", "-k", KERNELS, "-c", "40"]
    more = ["--graphs", str(graphs)] if graphs else []
    return [
        Step("what this machine has", [*python, "bsmamba2", "doctor"], 60),
        Step("numbers", [*numbers, "--json", str(folder / "numbers.json")], 120),
        Step("a song in bf16", [*separate, "--precision", "bf16"], 90),
        Step("a song in float32", separate, 90),
        Step("memory errors", [*sanitizer, "memcheck", *numbers], 120),
        Step("races", [*sanitizer, "racecheck", *numbers], 120),
        Step("counters of the kernels", [*counters, *numbers], 90),
        Step("benchmark", [*bench, "--json", str(folder / "gpu.json"), *more], 540),
    ]


def run(step: Step, seconds: float, log: Path, environment: dict[str, str]) -> str:
    """Runs a step and returns how it ended."""
    if shutil.which(step.command[0]) is None:
        return f"{step.command[0]} is not installed"
    if seconds < 1:
        return "no time left"
    start = time.monotonic()
    with log.open("wb") as output:
        try:
            done = subprocess.run(
                step.command, stdout=output, stderr=subprocess.STDOUT, timeout=seconds,
                env=environment, cwd=ROOT,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"stopped after {seconds:.0f} s"
    return f"ended with {done.returncode} after {time.monotonic() - start:.0f} s"


def report(
    planned: list[Step], folder: Path, minutes: float, environment: dict[str, str]
) -> list[str]:
    """Runs the steps, writes ``report.md`` after each, and returns how they ended."""
    end = time.monotonic() + 60 * minutes
    text, endings = "# The first minutes on a card\n", []
    for number, step in enumerate(planned):
        log = folder / f"{number}-{step.title.replace(' ', '-')}.log"
        ending = run(step, min(step.seconds, end - time.monotonic()), log, environment)
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        shown = "\n".join(["```", f"$ {' '.join(step.command)}", *lines[-TAIL_LINES:], "```"])
        text += f"\n## {step.title}: {ending}\n{shown}\n"
        (folder / "report.md").write_text(text, encoding="utf-8")
        print(f"{step.title}: {ending}", flush=True)
        endings.append(ending)
    return endings


def write_song(path: Path) -> None:
    """Writes a stereo WAV of noise."""
    noise = np.random.default_rng(0).normal(0, 3000, (SONG_SECONDS * 44100, 2))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(44100)
        file.writeframes(noise.clip(-32768, 32767).astype("<i2").tobytes())


def main() -> None:
    """Runs all steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--output", type=Path, default=Path("first_minutes"))
    parser.add_argument("--graphs", type=Path, help="The folder that benchmarks.gpu.graphs wrote.")
    parser.add_argument("--dry-run", type=Path, metavar="LIBRARIES")
    arguments = parser.parse_args()
    folder = arguments.output.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    write_song(folder / "song.wav")
    environment = dict(os.environ)
    if arguments.dry_run:
        environment["LD_LIBRARY_PATH"] = str(arguments.dry_run.absolute())
    planned = steps(folder, arguments.graphs)
    endings = report(planned, folder, arguments.minutes, environment)
    sys.exit(any(ending.startswith("ended with 1 ") for ending in endings))


if __name__ == "__main__":
    main()
