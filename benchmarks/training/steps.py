"""How many training steps `small` takes per second, in this checkout and in others.

    python -m benchmarks.training.steps [--checkout NAME=FOLDER ...] [--steps N] [--rounds N]

Each checkout runs in a process of its own, on one thread, over the same noise, with the settings of
the shipped weights: four items of 3 s, half of them as streams, a hop of 1024 samples in the loss.
The checkouts take turns, so that the load of the machine meets them alike. Every step must have a
finite loss, and all checkouts the same first loss. Writes benchmarks/results/training/steps.md.
Needs the extra training, and compiled kernels in every checkout; takes a minute per checkout.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from benchmarks.arguments import argument_parser
from benchmarks.machine import Watch, background_load, conditions
from benchmarks.pages import RESULTS, ROOT

RATE = 44100
HERE = "this checkout"
FOLDERS = ("runtime", "network", "training")
LOSS_TOLERANCE = 1e-3
"""Relative difference of the first loss, which only rounding changes."""
CHILD = """
import sys, time, torch
from pathlib import Path
from bsmamba2_training.loop import train
from bsmamba2_training.run import Plan, Run
torch.set_num_threads(1)
plan = Plan(preset="small", steps=int(sys.argv[3]), batch=4, segment_s=3.0, loss_hop=1024,
            silence=0.1, valid_every=10**6)
times = []
train(Run(Path(sys.argv[2]), plan, torch.device("cpu"), ()), Path(sys.argv[1]), save_every_s=1e9,
      report=lambda *_: times.append((time.perf_counter(), time.process_time())))
for (a, b), (c, d) in zip(times[:-2], times[1:-1]):  # the last step validates and saves
    print(c - a, d - b)
"""


def main() -> None:
    parser = argument_parser("training.steps", __doc__)
    parser.add_argument("--checkout", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--steps", type=int, default=8, help="Steps per round. Default: 8.")
    parser.add_argument("--rounds", type=int, default=3, help="Default: 3.")
    arguments = parser.parse_args()
    checkouts = dict(one.split("=", 1) for one in arguments.checkout) | {HERE: str(ROOT)}
    watch = Watch()
    with tempfile.TemporaryDirectory() as folder:
        dataset = Path(folder, "set")
        write_noise(dataset)
        measured: dict[str, list[tuple[float, float]]] = {name: [] for name in checkouts}
        losses: dict[str, float] = {}
        for number in range(arguments.rounds):
            for name, checkout in checkouts.items():
                run = Path(folder, f"{name}-{number}")
                measured[name] += time_steps(Path(checkout), dataset, run, arguments.steps)
                losses[name] = first_loss(run)
        reference = losses[HERE]
        for name, loss in losses.items():
            if abs(loss - reference) > LOSS_TOLERANCE * reference:
                sys.exit(f"error: the first loss of {name} must be {reference:.4f}; got {loss:.4f}")
    rows = [
        f"| {name} | {1 / np.median([wall for wall, _ in steps]):.2f} | "
        f"{np.median([cpu for _, cpu in steps]):.2f} s |"
        for name, steps in measured.items()
    ]
    load = background_load(watch.background_cores())
    page = [
        "# Training steps on a CPU",
        "",
        "`small`, four items of 3 s per step, half of them as streams, hop of 1024 samples in the "
        "loss, one thread; medians.",
        "",
        "| checkout | steps per second | processor time per step |",
        "|---|---|---|",
        *rows,
        "",
        f"{conditions('one thread', 'torch')}; {load}; `python -m benchmarks.training.steps`.",
        "",
    ]
    (RESULTS / "training/steps.md").write_text("\n".join(page))
    print("\n".join(page))


def write_noise(dataset: Path) -> None:
    """Writes a data set of noise with pauses."""
    random = np.random.default_rng(0)
    for name in ("train/vocals/a", "train/instrumental/a", "valid/a/vocals", "valid/a/mixture"):
        noise = 0.1 * random.standard_normal((20 * RATE, 2))
        noise[: 5 * RATE] *= "vocals" not in name
        path = dataset / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, noise, RATE)


def time_steps(checkout: Path, dataset: Path, run: Path, steps: int) -> list[tuple[float, float]]:
    """Trains in a process of its own; returns the time and the processor time of each step, s."""
    path = os.pathsep.join(str(checkout / folder) for folder in FOLDERS)
    environment = os.environ | {
        "PYTHONPATH": path,
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "passive",
    }
    command = [sys.executable, "-c", CHILD, str(dataset), str(run), str(steps + 2)]
    child = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    pairs = (line.split() for line in child.stdout.splitlines())
    return [(float(wall), float(cpu)) for wall, cpu in pairs]


def first_loss(run: Path) -> float:
    """Reads the first loss of a run; ends the program if any is not finite."""
    with (run / "curve.csv").open() as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    if not np.isfinite(losses).all():
        sys.exit(f"error: every loss must be finite; got {losses}")
    return losses[0]


if __name__ == "__main__":
    main()
