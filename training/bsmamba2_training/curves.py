"""Plots the curve of a run."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np

from bsmamba2.files.part_file import replacing
from bsmamba2_training.run import Run

matplotlib.use("Agg")
from matplotlib import pyplot as plt

SMOOTHED_STEPS = 50
"""Each point of a smoothed line is the mean of up to this many steps."""


def plot(run: Run) -> Path:
    """Plots loss, gradient norm and validation score over steps; returns ``RUN/curve.png``."""
    steps = np.array([int(row["step"]) for row in run.rows])
    loss = np.array([float(row["loss"]) for row in run.rows])
    gradient = np.array([float(row["gradient"]) for row in run.rows])
    valid = [(int(r["step"]), float(r["valid_usdr_db"])) for r in run.rows if r["valid_usdr_db"]]
    figure, axes = plt.subplots(3, 1, sharex=True, figsize=(8, 8), layout="constrained")
    for axis, values, name in zip(axes, (loss, gradient), ("loss", "gradient norm"), strict=False):
        axis.plot(steps, values, ".", markersize=1, color="0.8")
        axis.plot(steps, smooth(values))
        axis.set(ylabel=name, yscale="log")
    axes[2].plot([step for step, _ in valid], [usdr for _, usdr in valid], "o-")
    axes[2].set(ylabel="validation, vocals uSDR, dB", xlabel="step")
    figure.suptitle(f"{run.plan.preset}, {run.seconds / 3600:.1f} h on {run.device.type}")
    path = run.folder / "curve.png"
    with replacing(path) as unfinished:
        figure.savefig(unfinished, format="png")
    plt.close(figure)
    return path


def smooth(values: np.ndarray) -> np.ndarray:
    """Returns the running mean over SMOOTHED_STEPS values; a step that overflowed counts as 0."""
    sums = np.cumsum(np.pad(np.nan_to_num(values, posinf=0), (1, 0)))
    last = np.arange(1, len(values) + 1)
    first = np.maximum(0, last - SMOOTHED_STEPS)
    means: np.ndarray = (sums[last] - sums[first]) / (last - first)
    return means
