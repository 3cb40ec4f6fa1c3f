"""What sizes learn in the same time: those that are fast enough, trained from random weights.

    python benchmarks/learning.py SET [--minutes 8] [--only NAME]

Each size of benchmarks/sizes.py named here gets the same minutes of the same machine, the items in
the same order, the authors' loss with neither the one of silence nor added music, and a rate that
falls to 0 as the minutes end. A size that takes longer for a step makes fewer of them, which is the
question. Scores are of the validation songs of SET. Writes benchmarks/results/learning.md, the
curves and a plot. Needs the extras cpu, export and training; two minutes more than asked for a
size.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from pathlib import Path

import matplotlib
import numpy as np
import torch
from machine import Watch, about, busy
from sizes import RESULTS, SIZES, THREADS

from bsmamba2.audio.array import Audio
from bsmamba2_network import PRESETS, BSMamba2, native
from bsmamba2_training import evaluation, layout
from bsmamba2_training.curves import smooth
from bsmamba2_training.loop import train
from bsmamba2_training.recipe import AMOUNTS, Amounts
from bsmamba2_training.run import Plan, Run

matplotlib.use("Agg")
from matplotlib import pyplot as plt

FAST_ENOUGH = ("small", "long 96 x 4, mask 2")
"""The two fastest that fit in benchmarks/results/sizes.md."""
SHOWN = {
    "usdr vocals": "uSDR, vocals",
    "usdr instrumental": "uSDR, instrumental",
    evaluation.LEAKAGE: "left where no voice is",
}
TRIAL_STEPS = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--minutes", type=float, default=8.0, help="Of training, for each size.")
    parser.add_argument("--only", action="append", help="Sizes of these names.")
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    watch, data = Watch(), made_by(arguments.dataset)
    rows, curves = [], {}
    for name in arguments.only or FAST_ENOUGH:
        PRESETS[name] = SIZES[name]  # a plan names its size
        with tempfile.TemporaryDirectory() as folder:
            run = learn(name, arguments.dataset, arguments.minutes, Path(folder))
        curves[name] = run.rows
        rows.append(row(name, run, layout.songs(arguments.dataset, "valid")))
        print(rows[-1], flush=True)
    draw(curves, RESULTS / "learning.png")
    with (RESULTS / "learning.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("size", "step", "seconds", "loss"))
        for name, steps in curves.items():
            writer.writerows((name, at["step"], at["seconds"], at["loss"]) for at in steps)
    only = "".join(f" --only '{name}'" for name in arguments.only or ())
    command = f"python benchmarks/learning.py SET --minutes {arguments.minutes:g}{only}"
    page = [
        f"# What sizes learn in {arguments.minutes:g} minutes",
        "",
        f"| size | parameters | a step | steps | minutes | {' | '.join(SHOWN.values())} |",
        f"|---|---|---|---|---|{'---|' * len(SHOWN)}",
        *rows,
        "",
        "From random weights, by the authors' loss with a hop of 1024 samples, with the same items "
        "in the same order; medians of the validation songs. Below, losses at equal steps.",
        "",
        "![Loss beside the first size's](learning.png)",
        "",
        f"{about(f'{THREADS} threads', 'torch')}; {busy(watch.others())}; {data}, `{command}`.",
        "",
    ]
    (RESULTS / "learning.md").write_text("\n".join(page))
    print("\n".join(page))


def made_by(dataset: Path) -> str:
    """The command that makes such a data set; its name where it is not one of ours."""
    if not (dataset / AMOUNTS).exists():
        return f"SET is {dataset.name}"
    usual, made = Amounts(), json.loads((dataset / AMOUNTS).read_text())
    options = [
        f" --{name.replace('_', '-')} {made[name]:g}"
        for name in ("sung_minutes", "held_minutes")
        if made[name] != getattr(usual, name)
    ]
    return f"`bsmamba2 dataset SET{''.join(options)}`"


def learn(name: str, dataset: Path, minutes: float, folder: Path) -> Run:
    """A run of as many steps as the minutes hold, by the pace of a short trial."""
    trial = trained(name, TRIAL_STEPS, dataset, folder / "trial")
    # The last step's seconds have the validation in them.
    step_s = np.median(np.diff([float(step["seconds"]) for step in trial.rows[2:-1]]))
    return trained(name, max(1, int(60 * minutes / step_s)), dataset, folder / "run")


def trained(name: str, steps: int, dataset: Path, folder: Path) -> Run:
    plan = Plan(
        preset=name, steps=steps, batch=4, segment_s=3.0, learning_rate=1e-3, warm_up=20,
        decay=0.95, ema=0.98, loss_hop=1024, valid_every=steps + 1, valid_s=10.0,
    )  # fmt: skip
    run = Run(folder, plan, torch.device("cpu"))
    train(run, dataset, workers=1)
    return run


def row(name: str, run: Run, songs: tuple[layout.Song, ...]) -> str:
    estimator = network_estimator(run.average.net)
    scores = evaluation.summarise(evaluation.evaluate(songs, {name: estimator}, csdr=False))[name]
    parameters = sum(value.numel() for value in run.net.state_dict().values())
    cells = " | ".join(f"{scores[metric].median:.2f} dB" for metric in SHOWN)
    size = f"{name} | {parameters / 1e6:.1f} M"
    spent = f"{run.seconds / run.step:.2f} s | {run.step} | {run.seconds / 60:.1f}"
    return f"| {size} | {spent} | {cells} |"


def network_estimator(net: BSMamba2) -> evaluation.Estimator:
    """A network on a whole song at once."""

    def run(song: layout.Song, mixture: Audio, vocals: Audio) -> tuple[Audio, Audio]:
        with torch.no_grad(), native.training():
            estimate = net(torch.from_numpy(mixture)[None])[0, 0].numpy()
        return estimate, mixture - estimate

    return run


def draw(curves: dict[str, list[dict[str, str]]], path: Path) -> None:
    """Each size's loss less the first one's, step by step: a loss depends on its items so much
    more than on a network this young that a curve of its own would show the items."""
    losses = {
        name: np.array([float(step["loss"]) for step in steps]) for name, steps in curves.items()
    }
    first = next(iter(losses))
    figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    for name, loss in losses.items():
        common = min(len(loss), len(losses[first]))
        axis.plot(smooth(loss[:common] - losses[first][:common]), label=name)
    axis.set(xlabel="step", ylabel=f"loss less that of {first}, mean of up to 50 steps")
    axis.legend()
    figure.savefig(path)
    plt.close(figure)


if __name__ == "__main__":
    main()
