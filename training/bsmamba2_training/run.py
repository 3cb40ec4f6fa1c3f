"""A run: what is trained, how far it is, and its folder.

    RUN/plan.json           the plan, fixed when the run began
    RUN/state.pt            step, weights, their moving average, the optimiser: all to go on from
    RUN/curve.csv           a row a step
    RUN/curve.png           the same, drawn
    RUN/model.safetensors   the moving average: what ``bsmamba2 separate -m`` takes

Each file is replaced whole, the state last, so a run can be killed at any moment: it goes on from
its last state, and rows after that are dropped.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from bsmamba2.errors import Error, printable
from bsmamba2_network import BSMamba2, Config
from bsmamba2_training.loss import SILENCE_WINDOW

FIGURES = ("loss", "waveform", "spectral", "silence", "gradient", "rate")
COLUMNS = ("step", *FIGURES, "seconds", "valid_usdr_db")
PRECISIONS = ("fp32", "bf16")


class TrainingError(Error):
    """A plan that cannot be trained, or a run that cannot go on."""


@dataclass(frozen=True)
class Plan:
    """Everything that decides the result, besides the data and the weights it begins with.

    Raises:
        TrainingError: a value is out of range.
    """

    preset: str = "small"
    steps: int = 20000
    batch: int = 8
    """Items a step."""
    parts: int = 1
    """Parts of a batch that are computed one after the other, for less memory."""
    segment_s: float = 8.0
    """Length of an item, seconds."""
    learning_rate: float = 5e-4
    warm_up: int = 200
    """Steps over which the rate rises from 0."""
    decay: float = 0.2
    """The last part of all steps, over which the rate falls linearly to 0."""
    clip: float = 3.0
    """Largest norm of the gradient."""
    ema: float = 0.999
    """Of the moving average of the weights, a step."""
    weight_decay: float = 0.01
    streaming: float = 0.5
    """Part of a batch whose backward scans along time see a bounded lookahead."""
    precision: str = "fp32"
    loss_hop: int = 147
    """Of the loss's transforms, samples; a longer one is faster."""
    silence: float = 0.0
    """Weight of what sounds where the voice is silent; 0 is the authors' loss."""
    variety: float = 0.0
    """Probability that other music or notes lie over the music, and of a stem's equaliser."""
    valid_every: int = 500
    """Steps from validation to validation."""
    valid_s: float = 60.0
    """Seconds of songs it hears."""
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
        _require(0 <= self.streaming <= 1, "streaming", "a part from 0 to 1", self.streaming)
        _require(self.silence >= 0, "silence", "at least 0", self.silence)
        has_window = self.silence == 0 or self.samples >= SILENCE_WINDOW
        _require(has_window, "segment", "at least 0.5 with a weight of silence", self.segment_s)
        _require(0 <= self.variety <= 1, "variety", "a probability", self.variety)
        _require(0 <= self.decay <= 1, "decay", "a part from 0 to 1", self.decay)
        _require(0 <= self.ema < 1, "ema", "from 0 to below 1", self.ema)
        known = self.precision in PRECISIONS
        _require(known, "precision", " or ".join(PRECISIONS), self.precision)

    @property
    def config(self) -> Config:
        """The network's sizes."""
        return Config.preset(self.preset)

    @property
    def samples(self) -> int:
        """Of an item."""
        return int(self.segment_s * self.config.sample_rate)

    def rate(self, step: int) -> float:
        """The learning rate of a step: up, level, down."""
        up = (step + 1) / max(1, self.warm_up)
        down = (self.steps - step) / max(1.0, self.decay * self.steps)
        return self.learning_rate * min(1.0, up, down)


def mean(nets: list[BSMamba2]) -> dict[str, Tensor]:
    """The networks' weights on average, which for legs of one training is a network between them.

    Often it generalises better than each of them: Wortsman et al. 2022, "Model soups".
    """
    states = [net.state_dict() for net in nets]
    return {name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]}


class Average(nn.Module):
    """The moving average of a network's weights, which is what is kept of it.

    Early on it forgets faster, (1 + step) / (10 + step), so that it is not the random start.
    """

    def __init__(self, net: BSMamba2, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.net = BSMamba2(net.config).to(next(net.parameters()).device)
        self.net.load_state_dict(net.state_dict())
        self.net.requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, net: BSMamba2, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        ours = [weight.detach() for weight in self.net.parameters()]
        theirs = [weight.detach() for weight in net.parameters()]
        torch._foreach_lerp_(ours, theirs, 1 - decay)


class Run:
    """A run's folder, and what is in memory of it.

    Args:
        folder: goes on if a run is there; begins one otherwise.
        plan: of a new run. Given for one that is there, it must be the same.
        weights: what a new run starts from in place of random weights, the mean of the networks in
            these files; a run that goes on has its own.

    Raises:
        TrainingError: neither a run nor a plan is there, or the plans differ.
    """

    def __init__(
        self, folder: Path, plan: Plan | None, device: torch.device, weights: Sequence[Path] = ()
    ) -> None:
        self.folder, self.device = folder, device
        self.plan = plan = self._settle(plan)
        torch.manual_seed(plan.seed)
        self.net = BSMamba2(plan.config)
        is_new = not (folder / "state.pt").exists()
        if weights and is_new:
            self.net.load_state_dict(mean([BSMamba2.load(path, plan.config) for path in weights]))
        self.net.to(device).train()
        self.average = Average(self.net, plan.ema)
        self.optimizer = torch.optim.AdamW(
            self.net.parameters(), plan.learning_rate, weight_decay=plan.weight_decay
        )
        self.step = 0
        self.seconds = 0.0
        if not is_new:
            self._load()
        self._rows = [row for row in self._read_rows() if int(row["step"]) < self.step]
        self._write_rows()
        if is_new:
            self.save()  # or a run killed before its first save would forget what it started from

    def save(self) -> None:
        """Writes everything; after it, the run can be killed and go on from here."""
        with replacing(self.folder / "model.safetensors") as path:
            self.average.net.save(path)
        state: dict[str, Any] = {
            "step": self.step,
            "seconds": self.seconds,
            "net": self.net.state_dict(),
            "average": self.average.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        self._flush()
        with replacing(self.folder / "state.pt") as path:
            torch.save(state, path)

    def log(self, **values: float) -> None:
        """Adds the row of this step to the curve."""
        row = dict.fromkeys(COLUMNS, "") | {"step": str(self.step)}
        row |= {name: f"{value:.6g}" for name, value in values.items()}
        self._rows.append(row)
        with (self.folder / "curve.csv").open("a", newline="") as file:
            csv.DictWriter(file, COLUMNS).writerow(row)

    @property
    def rows(self) -> list[dict[str, str]]:
        """The curve so far."""
        return self._rows

    def _settle(self, plan: Plan | None) -> Plan:
        """The folder's plan, or the one given, now written there."""
        path = self.folder / "plan.json"
        if path.exists():
            try:
                kept = Plan(**json.loads(path.read_text()))
            except (ValueError, TypeError) as error:
                raise TrainingError(f"{path} is damaged: {error}") from None
            if plan is not None and plan != kept:
                changed = [
                    field.name
                    for field in dataclasses.fields(Plan)
                    if getattr(plan, field.name) != getattr(kept, field.name)
                ]
                raise TrainingError(
                    f"{self.folder} holds a run of another plan ({', '.join(changed)} differ): "
                    "name another folder, or give no plan to go on with that one"
                )
            return kept
        if plan is None:
            raise TrainingError(f"{self.folder} holds no run to go on with: name a preset")
        self.folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as unfinished:
            unfinished.write_text(json.dumps(dataclasses.asdict(plan), indent=1))
        return plan

    def _load(self) -> None:
        path = self.folder / "state.pt"
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            self.net.load_state_dict(state["net"])
            self.average.net.load_state_dict(state["average"])
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
                    if None not in row.values() and row["step"].isdigit():  # cut off by a kill
                        yield row

    def _write_rows(self) -> None:
        with replacing(self.folder / "curve.csv") as path, path.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(self._rows)

    def _flush(self) -> None:
        with (self.folder / "curve.csv").open("a") as file:
            os.fsync(file.fileno())


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of ``path`` once it is whole and on the disk."""
    unfinished = path.with_name(f".{path.name}.part")
    yield unfinished
    with unfinished.open("rb+") as file:
        os.fsync(file.fileno())
    unfinished.replace(path)


def _require(holds: bool, name: str, allowed: str, came: object) -> None:
    if not holds:
        raise TrainingError(f"{name} must be {allowed}; got {came!r}")
