"""How much the sizes that are fast enough learn from random weights in the same time.

    python -m benchmarks.training.learning SET [--minutes 8] [--only NAME]

Every size gets the same time on the same machine, the same items in the same order, the authors'
loss without the silence loss and without added music, and a learning rate that reaches 0 at the
end. A size with slower steps takes fewer of them; the benchmark shows whether it still learns more.
The scores are on SET's validation songs. Writes benchmarks/results/learning.md, the curves and a
plot. Needs the extras cpu, export and training; takes two minutes per size beyond --minutes.
"""

from __future__ import annotations

import csv
import json
import tempfile
from pathlib import Path

import matplotlib
import numpy as np
import torch

from benchmarks.arguments import argument_parser
from benchmarks.machine import Watch, background_load, conditions
from benchmarks.pages import RESULTS
from benchmarks.training.sizes import SIZES, THREADS
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
"""The two fastest sizes that fit, by benchmarks/results/sizes.md."""
COLUMNS = {
    "usdr vocals": "uSDR, vocals",
    "usdr instrumental": "uSDR, instrumental",
    evaluation.LEAKAGE: "leakage where nobody sings",
}
TRIAL_STEPS = 12


def main() -> None:
    parser = argument_parser("training.learning", __doc__)
    parser.add_argument("dataset", type=Path, help="A data set written by bsmamba2 dataset.")
    parser.add_argument(
        "--minutes", type=float, default=8.0, help="Training time per size. Default: 8."
    )
    parser.add_argument(
        "--only", action="append", help="A size to train; may be repeated. Default: two sizes."
    )
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    watch, dataset = Watch(), dataset_command(arguments.dataset)
    rows, curves = [], {}
    for name in arguments.only or FAST_ENOUGH:
        PRESETS[name] = SIZES[name]  # a plan refers to its size by name
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
            writer.writerows((name, step["step"], step["seconds"], step["loss"]) for step in steps)
    only = "".join(f" --only '{name}'" for name in arguments.only or ())
    command = f"python -m benchmarks.training.learning SET --minutes {arguments.minutes:g}{only}"
    page = [
        f"# What each size learns in {arguments.minutes:g} minutes",
        "",
        f"| size | parameters | per step | steps | minutes | {' | '.join(COLUMNS.values())} |",
        f"|---|---|---|---|---|{'---|' * len(COLUMNS)}",
        *rows,
        "",
        "Trained from random weights with the authors' loss at a hop of 1024 samples, on the same "
        "items in the same order; medians over the validation songs. The plot shows each size's "
        "loss minus the first size's loss at the same step.",
        "",
        "![Loss minus the first size's loss](learning.png)",
        "",
        f"{conditions(f'{THREADS} threads', 'torch')}; "
        f"{background_load(watch.background_cores())}; {dataset}, `{command}`.",
        "",
    ]
    (RESULTS / "learning.md").write_text("\n".join(page))
    print("\n".join(page))


def dataset_command(dataset: Path) -> str:
    """Returns the command that writes the data set; for other data sets, the folder's name."""
    if not (dataset / AMOUNTS).exists():
        return f"SET is {dataset.name}"
    defaults, amounts = Amounts(), json.loads((dataset / AMOUNTS).read_text())
    options = [
        f" --{name.replace('_', '-')} {amounts[name]:g}"
        for name in ("sung_minutes", "held_minutes")
        if amounts[name] != getattr(defaults, name)
    ]
    return f"`bsmamba2 dataset SET{''.join(options)}`"


def learn(name: str, dataset: Path, minutes: float, folder: Path) -> Run:
    """Trains as many steps as fit into the minutes at the pace of a short trial."""
    trial = train_size(name, TRIAL_STEPS, dataset, folder / "trial")
    # The last step's seconds include the validation.
    step_s = np.median(np.diff([float(step["seconds"]) for step in trial.rows[2:-1]]))
    return train_size(name, max(1, int(60 * minutes / step_s)), dataset, folder / "run")


def train_size(name: str, steps: int, dataset: Path, folder: Path) -> Run:
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
    cells = " | ".join(f"{scores[metric].median:.2f} dB" for metric in COLUMNS)
    size = f"{name} | {parameters / 1e6:.1f} M"
    pace = f"{run.seconds / run.step:.2f} s | {run.step} | {run.seconds / 60:.1f}"
    return f"| {size} | {pace} | {cells} |"


def network_estimator(net: BSMamba2) -> evaluation.Estimator:
    """Returns an estimator that runs the network on a whole song in one call."""

    def run(song: layout.Song, mixture: Audio, vocals: Audio) -> tuple[Audio, Audio]:
        with torch.no_grad(), native.training():
            estimate = net(torch.from_numpy(mixture)[None])[0, 0].numpy()
        return estimate, mixture - estimate

    return run


def draw(curves: dict[str, list[dict[str, str]]], path: Path) -> None:
    """Plots each size's loss minus the first size's, step by step.

    This early in training the loss depends far more on the items of the step than on the network,
    so a plot of the losses themselves would only show the items.
    """
    losses = {
        name: np.array([float(step["loss"]) for step in steps]) for name, steps in curves.items()
    }
    first = next(iter(losses))
    figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    for name, loss in losses.items():
        common = min(len(loss), len(losses[first]))
        axis.plot(smooth(loss[:common] - losses[first][:common]), label=name)
    axis.set(xlabel="step", ylabel=f"loss minus that of {first}, mean of up to 50 steps")
    axis.legend()
    figure.savefig(path)
    plt.close(figure)


if __name__ == "__main__":
    main()
