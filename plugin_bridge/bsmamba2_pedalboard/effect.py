"""Separation as an effect: a mixture in, one of its stems out."""

from __future__ import annotations

import math
import os
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from bsmamba2 import DeviceError, ModelError, Separator
from bsmamba2.stems import find_stem
from bsmamba2_pedalboard.contract import (
    ArgumentTypeError,
    ArgumentValueError,
    Effect,
    require_number,
)

if TYPE_CHECKING:
    from bsmamba2.array import Audio
    from bsmamba2.engine import Engine

MAX_GAIN_DB = 100.0


class SeparationEffect(Effect):
    """Passes one stem of what it is given, at the input's own rate, length and layout.

        out = (1 - mix) · input + mix · gain · stem

    It takes mono and stereo, 8000 to 384000 Hz. Each call is a whole signal; there is no
    streaming yet. It stands in a :class:`Board`, not in Pedalboard's own containers, which take
    native plugins alone.

    Args:
        model: the path of a model, as for :class:`bsmamba2.Separator`; or a Separator or an
            engine, so that several effects share one.
        stem: any stem of the model, its residual and their other names included.
        device: ``auto``, ``cpu``, ``cuda[:N]`` or ``tensorrt[:N]``; a Separator or an engine has
            its own.
        gain_db: of the stem, dB, up to 100; -inf mutes it.
        mix: 0 is the input (dry), 1 the stem (wet).
        overlap: of neighbouring chunks, a fraction in [0, 1). Default: the model's.

    Raises:
        ModelError: the model cannot be found or used.
        DeviceError: the device is not there, or was named beside a model that has its own.
        MissingExtra: what runs such a model is not installed.
        TypeError, ValueError: another argument is of a wrong type or out of its range.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Separator | Engine | None = None,
        *,
        stem: str = "vocals",
        device: str = "auto",
        gain_db: float = 0.0,
        mix: float = 1.0,
        overlap: float | None = None,
    ) -> None:
        if not isinstance(device, str):
            raise ArgumentTypeError(
                f"device must be a string; {device!r} came: give auto, cpu or cuda"
            )
        self._source = model
        self._asked_device = device
        self._separator = _separator(model, device)
        self.stem = stem
        self.gain_db = gain_db
        self.mix = mix
        self.overlap = overlap

    @property
    def model(self) -> str:
        """What the model is called."""
        return self._separator.manifest.name

    @property
    def device(self) -> str:
        """Where it runs: ``cpu``, ``cuda:0``."""
        return self._separator.device

    @property
    def stem(self) -> str:
        """Which stem passes, by the model's own name for it."""
        return self._stem

    @stem.setter
    def stem(self, name: str) -> None:
        if not isinstance(name, str):
            raise ArgumentTypeError(f"stem must be a string; {name!r} came: give e.g. 'vocals'")
        try:
            self._stem = find_stem(name, self._separator.manifest.outputs)
        except ModelError as error:
            raise ArgumentValueError(str(error)) from None

    @property
    def gain_db(self) -> float:
        """Gain of the stem, dB; -inf mutes it."""
        return self._gain_db

    @gain_db.setter
    def gain_db(self, value: float) -> None:
        allowed = f"-inf to {MAX_GAIN_DB:g} dB"
        mend = "20 dB is a factor of 10"
        self._gain_db = require_number("gain_db", value, -math.inf, MAX_GAIN_DB, allowed, mend)

    @property
    def mix(self) -> float:
        """0 is the input (dry), 1 the stem (wet)."""
        return self._mix

    @mix.setter
    def mix(self, value: float) -> None:
        mend = "half of each is 0.5"
        self._mix = require_number("mix", value, 0, 1, "0 (dry) to 1 (wet)", mend)

    @property
    def overlap(self) -> float:
        """Of neighbouring chunks, a fraction in [0, 1); set to None for the model's default."""
        return self._separator.manifest.overlap if self._overlap is None else self._overlap

    @overlap.setter
    def overlap(self, value: float | None) -> None:
        mend = "MSST's num_overlap 2 is 0.5, its 4 is 0.75"
        below_one = math.nextafter(1, 0)
        self._overlap = (
            None
            if value is None
            else require_number("overlap", value, 0, below_one, "a fraction in [0, 1)", mend)
        )

    def _render(self, audio: Audio, sample_rate: float, buffer_size: int) -> Audio:
        channels, samples = audio.shape
        # The separator reads the smaller dimension as the channels.
        silence = max(0, channels + 1 - samples)
        mixture = np.pad(audio, ((0, 0), (0, silence))) if silence else audio
        stems = self._separator(mixture, sample_rate, overlap=self._overlap)
        gain = 10 ** (self._gain_db / 20)
        wet = stems[self._stem][:, :samples]
        return (1 - self._mix) * audio + self._mix * gain * wet

    def __repr__(self) -> str:
        return (
            f"<bsmamba2_pedalboard.SeparationEffect stem={self.stem!r} gain_db={self.gain_db:g} "
            f"mix={self.mix:g} at {id(self):#x}>"
        )

    def __reduce__(self) -> tuple[partial[SeparationEffect], tuple[()]]:
        """Copies and pickles by what was typed: the copy loads its model anew."""
        if not (self._source is None or isinstance(self._source, (str, os.PathLike))):
            raise ArgumentTypeError(
                "a SeparationEffect made from a live Separator or engine cannot be copied or "
                "pickled: make it from the model's name or path, or make another from the same one"
            )
        settings: dict[str, Any] = {
            "stem": self._stem,
            "device": self._asked_device,
            "gain_db": self._gain_db,
            "mix": self._mix,
            "overlap": self._overlap,
        }
        return partial(type(self), self._source, **settings), ()


def _separator(model: str | os.PathLike[str] | Separator | Engine | None, device: str) -> Separator:
    if isinstance(model, Separator):
        if device != "auto":
            raise DeviceError(
                f"device must be 'auto' with a Separator, which has one; {device!r} came"
            )
        return model
    is_named = model is None or isinstance(model, (str, os.PathLike))
    if not is_named and (isinstance(model, type) or not callable(getattr(model, "run", None))):
        raise ArgumentTypeError(
            f"model must be a name, a path, a bsmamba2.Separator or an engine; {model!r} came"
        )
    return Separator(model, device)
