"""A training run: its plan, its state, and its folder.

    RUN/plan.json           the plan, fixed when the run starts
    RUN/state.pt            all state needed to resume: step, weights, moving average, optimiser
    RUN/curve.csv           one row per step
    RUN/curve.png           the plotted curve
    RUN/model.safetensors   the moving average of the weights, for ``bsmamba2 separate -m``

Each file is replaced atomically, the state last, so a run can be killed at any moment. It resumes
from its last state and drops later rows of the curve.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from bsmamba2.errors import Error, printable, require
from bsmamba2.files.part_file import replacing
from bsmamba2_network import BSMamba2, Config
from bsmamba2_training.loss import SILENCE_WINDOW

FIGURES = ("loss", "waveform", "spectral", "silence", "sdr", "gradient", "rate")
VALIDATION = ("valid_usdr_db", "valid_level_db", "valid_leakage_db")
"""uSDR of the vocals, level of the voice in them, and their level where no voice sounds."""
COLUMNS = ("step", *FIGURES, "seconds", *VALIDATION)
PRECISIONS = ("fp32", "bf16")


class TrainingError(Error):
    """The plan is invalid, or the run cannot be resumed."""


_require = partial(require, kind=TrainingError)


@dataclass(frozen=True)
class Plan:
    """Everything that determines the result, except the data and the initial weights.

    Raises:
        TrainingError: a value is out of range.
    """

    preset: str = "small"
    steps: int = 20000
    """Total number of steps."""
    batch: int = 8
    """Items per step."""
    parts: int = 1
    """Number of parts of a batch, computed one after the other to save memory."""
    segment_s: float = 8.0
    """Length of an item, in seconds."""
    learning_rate: float = 5e-4
    """Peak learning rate."""
    warm_up: int = 200
    """Steps over which the learning rate rises from 0."""
    decay: float = 0.2
    """Fraction of steps, at the end, over which the learning rate falls linearly to 0."""
    clip: float = 3.0
    """Maximum norm of the gradient."""
    ema: float = 0.999
    """Decay per step of the moving average of the weights."""
    weight_decay: float = 0.01
    streaming: float = 0.5
    """Fraction of a batch whose backward scans along time have a bounded lookahead."""
    precision: str = "fp32"
    """One of :data:`PRECISIONS`."""
    loss_hop: int = 147
    """Hop of the transforms in the loss, in samples; a longer hop is faster."""
    silence: float = 0.0
    """Weight of the silence loss; 0 is the authors' loss."""
    silence_rise: float = 0.0
    """Fraction of steps over which the weight of the silence loss rises from 0 to its value."""
    sdr: float = 0.0
    """Weight of the SDR loss; 0 is the authors' loss."""
    singers: float = 0.0
    """Share of items with the voice of a singer from a song."""
    songs: float = 0.0
    """Share of items that are whole songs with a teacher's vocals."""
    stereo: float = 0.0
    """Probability that a voice is placed anywhere in stereo, and that a mixture is changed."""
    variety: float = 0.0
    """Probability that other music is added to the music, and that a stem is equalised."""
    valid_every: int = 500
    """Steps between validations."""
    valid_s: float = 60.0
    """Audio per validation, in seconds."""
    seed: int = 0

    def __post_init__(self) -> None:
        config = Config.preset(self.preset)
        _require(self.steps >= 1, "steps", "at least 1", self.steps)
        _require(self.batch >= 1, "batch", "at least 1", self.batch)
        allowed = f"from 1 to the batch, {self.batch}"
        _require(1 <= self.parts <= self.batch, "parts", allowed, self.parts)
        shortest = 3 * config.n_fft / config.sample_rate
        _require(self.segment_s >= shortest, "segment", f"at least {shortest:.2f}", self.segment_s)
        _require(self.learning_rate > 0, "learning_rate", "above 0", self.learning_rate)
        _require(self.warm_up >= 0, "warm_up", "at least 0", self.warm_up)
        _require(self.clip > 0, "clip", "above 0", self.clip)
        _require(self.weight_decay >= 0, "weight_decay", "at least 0", self.weight_decay)
        _require(self.loss_hop >= 1, "loss_hop", "at least 1", self.loss_hop)
        _require(self.valid_every >= 1, "valid_every", "at least 1", self.valid_every)
        _require(self.valid_s > 0, "valid_s", "above 0", self.valid_s)
        _require(self.seed >= 0, "seed", "at least 0", self.seed)
        _require(0 <= self.streaming <= 1, "streaming", "in [0, 1]", self.streaming)
        _require(self.silence >= 0, "silence", "at least 0", self.silence)
        in_range = 0 <= self.silence_rise <= 1
        _require(in_range, "silence_rise", "in [0, 1]", self.silence_rise)
        _require(self.sdr >= 0, "sdr", "at least 0", self.sdr)
        _require(0 <= self.singers <= 1, "singers", "in [0, 1]", self.singers)
        allowed = f"from 0 to 1 minus singers, {1 - self.singers:g}"
        _require(0 <= self.songs <= 1 - self.singers, "songs", allowed, self.songs)
        _require(0 <= self.stereo <= 1, "stereo", "in [0, 1]", self.stereo)
        has_window = self.silence == 0 or self.samples >= SILENCE_WINDOW
        _require(has_window, "segment", "at least 0.5 if silence is above 0", self.segment_s)
        _require(0 <= self.variety <= 1, "variety", "in [0, 1]", self.variety)
        _require(0 <= self.decay <= 1, "decay", "in [0, 1]", self.decay)
        _require(0 <= self.ema < 1, "ema", "in [0, 1)", self.ema)
        is_known = self.precision in PRECISIONS
        _require(is_known, "precision", " or ".join(PRECISIONS), self.precision)

    @property
    def config(self) -> Config:
        """Sizes of the network."""
        return Config.preset(self.preset)

    @property
    def samples(self) -> int:
        """Length of an item, in samples."""
        return int(self.segment_s * self.config.sample_rate)

    def rate(self, step: int) -> float:
        """Returns the learning rate of a step: it rises, stays constant, then falls."""
        rising = (step + 1) / max(1, self.warm_up)
        falling = (self.steps - step) / max(1.0, self.decay * self.steps)
        return self.learning_rate * min(1.0, rising, falling)

    def silence_weight(self, step: int) -> float:
        """Returns the weight of the silence loss in a step.

        If it is high from the start, a network that misses a voice learns to be mute.
        """
        rising = (step + 1) / max(1.0, self.silence_rise * self.steps)
        return self.silence * min(1.0, rising)


def mean_weights(nets: list[BSMamba2]) -> dict[str, Tensor]:
    """Returns the mean of the weights of several networks trained from the same weights.

    The mean often generalises better than each of them: Wortsman et al. 2022, "Model soups".
    """
    states = [net.state_dict() for net in nets]
    return {name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]}


class Average(nn.Module):
    """The moving average of a network's weights; this is the model that a run produces.

    In the first steps its decay is smaller, (1 + step) / (10 + step), so that the random initial
    weights do not dominate.
    """

    def __init__(self, net: BSMamba2, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.net = BSMamba2(net.config).to(next(net.parameters()).device)
        self.net.load_state_dict(net.state_dict())
        self.net.requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, net: BSMamba2, step: int) -> None:
        """Moves the average towards the weights of ``net`` after a step."""
        decay = min(self.decay, (1 + step) / (10 + step))
        average = [weight.detach() for weight in self.net.parameters()]
        current = [weight.detach() for weight in net.parameters()]
        torch._foreach_lerp_(average, current, 1 - decay)


class Run:
    """A run in memory, and its folder on disk.

    Args:
        folder: if it contains a run, that run is resumed; otherwise a new run starts there.
        plan: plan of a new run; for a resumed run it must be None or the same plan.
        weights: names or checkpoints from which a new run starts instead of random weights; if
            several, their mean. A resumed run ignores them.

    Raises:
        TrainingError: the folder has no run and no plan is given, the plans differ, or the state
            of the run cannot be read.
    """

    def __init__(
        self,
        folder: Path,
        plan: Plan | None,
        device: torch.device,
        weights: Sequence[str | os.PathLike[str]] = (),
    ) -> None:
        self.folder, self.device = folder, device
        self.plan = plan = self._load_or_write_plan(plan)
        torch.manual_seed(plan.seed)
        self.net = BSMamba2(plan.config)
        is_new = not (folder / "state.pt").exists()
        if weights and is_new:
            nets = [BSMamba2.load(path, plan.config) for path in weights]
            self.net.load_state_dict(mean_weights(nets))
        self.net.to(device).train()
        self.average = Average(self.net, plan.ema)
        # On CUDA the default is as fast.
        self._is_fused = device.type == "cpu"
        self.optimizer = torch.optim.AdamW(
            self.net.parameters(),
            plan.learning_rate,
            weight_decay=plan.weight_decay,
            fused=self._is_fused,
        )
        self.step = 0
        self.seconds = 0.0
        if not is_new:
            self._load_state()
        self._rows = [row for row in self._read_rows() if int(row["step"]) < self.step]
        self._write_rows()
        if is_new:
            self.save()  # so that a run killed before its first save keeps its initial weights

    def save(self) -> None:
        """Writes model, curve and state; a run that is killed later resumes from here."""
        with replacing(self.folder / "model.safetensors") as path:
            self.average.net.save(path)
        state: dict[str, Any] = {
            "step": self.step,
            "seconds": self.seconds,
            "net": self.net.state_dict(),
            "average": self.average.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        self._sync_curve()
        with replacing(self.folder / "state.pt") as path:
            torch.save(state, path)

    def log(self, **values: float) -> None:
        """Appends the row of this step to the curve."""
        row = dict.fromkeys(COLUMNS, "") | {"step": str(self.step)}
        row |= {name: f"{value:.6g}" for name, value in values.items()}
        self._rows.append(row)
        with (self.folder / "curve.csv").open("a", newline="") as file:
            csv.DictWriter(file, COLUMNS).writerow(row)

    @property
    def rows(self) -> list[dict[str, str]]:
        """Rows of the curve so far, one per step."""
        return self._rows

    def _load_or_write_plan(self, plan: Plan | None) -> Plan:
        """Returns the plan in the folder; if there is none, writes the given plan."""
        path = self.folder / "plan.json"
        if path.exists():
            try:
                saved = Plan(**json.loads(path.read_text()))
            except (ValueError, TypeError) as error:
                raise TrainingError(f"{path} is damaged: {error}; use another folder") from None
            if plan is not None and plan != saved:
                changed = [
                    field.name
                    for field in dataclasses.fields(Plan)
                    if getattr(plan, field.name) != getattr(saved, field.name)
                ]
                raise TrainingError(
                    f"plan must equal that of the run in {self.folder}; got other values for "
                    f"{', '.join(changed)}: use another folder, or leave the plan out to resume"
                )
            return saved
        if plan is None:
            raise TrainingError(
                f"output must contain a run to resume; got {self.folder} without one: give a "
                "preset to start a new run"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as unfinished:
            unfinished.write_text(json.dumps(dataclasses.asdict(plan), indent=1))
        return plan

    def _load_state(self) -> None:
        path = self.folder / "state.pt"
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            self.net.load_state_dict(state["net"])
            self.average.net.load_state_dict(state["average"])
            for group in state["optimizer"]["param_groups"]:
                group["fused"] = self._is_fused  # the run may come from another device or version
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.seconds = int(state["step"]), float(state["seconds"])
        except (
            OSError, RuntimeError, KeyError, ValueError, TypeError, EOFError, UnpicklingError
        ) as error:  # fmt: skip
            reason = printable(str(error).partition("\n")[0])
            raise TrainingError(f"{path} cannot be read: {reason}") from None

    def _read_rows(self) -> Iterator[dict[str, str]]:
        path = self.folder / "curve.csv"
        if path.exists():
            with path.open(newline="") as file:
                for row in csv.DictReader(file):
                    # A killed run can leave an incomplete row.
                    if None not in row.values() and row["step"].isdigit():
                        yield row

    def _write_rows(self) -> None:
        with replacing(self.folder / "curve.csv") as path, path.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(self._rows)

    def _sync_curve(self) -> None:
        with (self.folder / "curve.csv").open("a") as file:
            os.fsync(file.fileno())
