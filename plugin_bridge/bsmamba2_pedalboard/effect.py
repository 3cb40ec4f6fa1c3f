"""Separation as an effect: a mixture in, one of its stems out."""

from __future__ import annotations

import math
import os
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from bsmamba2 import DeviceError, ModelError, Separator
from bsmamba2.audio.array import require_finite
from bsmamba2.audio.fifo import Fifo
from bsmamba2.formats.stem_names import find_stem
from bsmamba2_pedalboard.contract import Effect, require_number
from bsmamba2_pedalboard.errors import ArgumentTypeError, ArgumentValueError
from bsmamba2_pedalboard.shared_separations import SharedSeparations, StemStream
from bsmamba2_pedalboard.streams import EffectStream

if TYPE_CHECKING:
    from bsmamba2 import Stream
    from bsmamba2.audio.array import Audio
    from bsmamba2.formats.protocols import Engine
    from bsmamba2.stems import Stems

MAX_GAIN_DB = 100.0
MAX_PUSH = 1 << 15
"""Samples that pass at once: more would leave the processor's caches, at three times the cost."""


class SeparationEffect(Effect):
    """Passes one stem of what it is given, at the input's own rate, length and layout.

        out = (1 - mix) · input + mix · gain · stem

    It takes 8000 to 384000 Hz. It stands in a :class:`Board`; Pedalboard's own
    containers take native plugins alone, and for them :class:`Separate` carries it.

    A stream (``reset=False``, then ``flush()``) gives the same as the whole signal in one call.
    Each part brings as many samples as came, once :attr:`latency_samples` have come.

    Args:
        model: the path of a model, as for :class:`bsmamba2.Separator`; or a Separator or an
            engine, so that several effects share one.
        stem: any stem of the model, its residual and their other names included.
        device: ``auto``, ``cpu``, ``cuda[:N]`` or ``tensorrt[:N]``; a Separator or an engine has
            its own.
        gain_db: of the stem, dB, up to 100; -inf mutes it.
        mix: 0 is the input (dry), 1 the stem (wet).
        overlap: of neighbouring chunks, a fraction in [0, 1). Default: the model's.
        lookahead_ms: runs a streaming model in blocks as long as this, with as much heard beyond
            them: a latency of about twice this instead of a chunk's. Default: whole chunks, the
            best quality.
        trust_engine: loads a TensorRT engine that this user did not build; it can run any code.

    Settings hold from the next call; ``overlap`` and ``lookahead_ms`` from the next signal.

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
        lookahead_ms: float | None = None,
        trust_engine: bool = False,
    ) -> None:
        if not isinstance(device, str):
            raise ArgumentTypeError(
                f"device must be a string; {device!r} came: give auto, cpu or cuda[:N]"
            )
        super().__init__()
        self._source = model
        self._asked_device = device
        self._trusts_engine = trust_engine
        self._separator = _separator(model, device, trust_engine)
        self.stem = stem
        self.gain_db = gain_db
        self.mix = mix
        self.overlap = overlap
        self.lookahead_ms = lookahead_ms
        self._latencies: dict[tuple[float, float | None, float | None], int] = {}

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

    @property
    def lookahead_ms(self) -> float | None:
        """What a streaming model hears beyond its block, ms; None runs whole chunks."""
        return self._lookahead_ms

    @lookahead_ms.setter
    def lookahead_ms(self, value: float | None) -> None:
        self._lookahead_ms = (
            None
            if value is None
            else require_number(
                "lookahead_ms", value, 1, 60_000, "1 to 60000 ms, or None", "500 is half a second"
            )
        )

    @property
    def latency_samples(self) -> int:
        """How far a stream's output is behind its input: of the stream that runs, else of one at
        the model's own rate."""
        running = cast("SeparationStream | None", self._stream)
        if running is not None:
            return running.latency_samples
        return self.latency_at(self._separator.manifest.sample_rate)

    def latency_at(self, sample_rate: float) -> int:
        """:attr:`latency_samples` of a stream of this rate."""
        key = (sample_rate, self._overlap, self._lookahead_ms)
        if key not in self._latencies:
            channels = self._separator.manifest.channels
            self._latencies[key] = self._separation(sample_rate, channels).latency_samples
        return self._latencies[key]

    def open_stream(
        self, sample_rate: float, channels: int, shared: SharedSeparations | None = None
    ) -> SeparationStream:
        """A signal of its own through this effect, beside others that may run.

        Args:
            sample_rate: Hz.
            channels: of every push.
            shared: what other effects have made of the same input.
        """
        stems = (shared or SharedSeparations()).open(
            (id(self._separator), self._overlap, self._lookahead_ms),
            lambda: self._separation(sample_rate, channels),
        )
        return SeparationStream(self, stems, sample_rate, channels)

    def _separation(self, sample_rate: float, channels: int) -> Stream:
        chunks = self._lookahead_ms is None
        return self._separator.stream(
            sample_rate,
            channels,
            lookahead_ms=self._lookahead_ms,
            overlap=self._overlap if chunks else None,
        )

    def _open(
        self, rate: float, channels: int, size: int, shared: SharedSeparations, whole: bool
    ) -> EffectStream:
        return self.open_stream(rate, channels, shared)

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
            "lookahead_ms": self._lookahead_ms,
            "trust_engine": self._trusts_engine,
        }
        return partial(type(self), self._source, **settings), ()


class SeparationStream:
    """One signal through a separation, its output a constant number of samples late."""

    def __init__(
        self, effect: SeparationEffect, stems: StemStream, sample_rate: float, channels: int
    ) -> None:
        self.latency_samples = effect.latency_at(sample_rate)
        self._effect = effect
        self._rate = sample_rate
        self._came = 0
        self._stems = stems
        self._dry = Fifo(channels, np.float32)
        self._waiting = Fifo(channels, np.float32)  # for the separation
        self._ready = Fifo(channels, np.float32)
        self._before_output = self.latency_samples

    def push(self, audio: Audio) -> Audio:
        require_finite(audio, self._rate, self._came)  # here, and not when its turn has come
        if audio.shape[1] <= MAX_PUSH:
            return self._push(audio)
        starts = range(0, audio.shape[1], MAX_PUSH)
        parts = (self._push(audio[:, start : start + MAX_PUSH]) for start in starts)
        return np.concatenate(list(parts), axis=1)

    def _push(self, audio: Audio) -> Audio:
        self._came += audio.shape[1]
        self._dry.append(audio)
        self._waiting.append(audio)
        due = audio.shape[1] - self._before_output
        self._before_output = max(0, -due)
        # A host's block is small beside a chunk, so the separation is not asked at each of them.
        if due > len(self._ready):
            self._advance()
        return self._ready.take(max(0, due))

    def flush(self) -> Audio:
        self._advance()
        self._mix(self._stems.flush())
        return self._ready.take(len(self._ready))

    def _advance(self) -> None:
        self._mix(self._stems.push(self._waiting.take(len(self._waiting))))

    def _mix(self, stems: Stems) -> None:
        effect = self._effect
        stem = stems[effect.stem]
        dry = self._dry.take(stem.shape[1])
        gain = 10 ** (effect.gain_db / 20)
        self._ready.append((1 - effect.mix) * dry + effect.mix * gain * stem)


def _separator(
    model: str | os.PathLike[str] | Separator | Engine | None, device: str, trust_engine: bool
) -> Separator:
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
    return Separator(model, device, trust_engine=trust_engine)
