"""Separation as an effect: takes a mixture, returns one of its stems."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from bsmamba2 import DeviceError, Separator, Stream
from bsmamba2.engines.protocols import Engine
from bsmamba2_pedalboard.contract import Effect
from bsmamba2_pedalboard.errors import ArgumentTypeError
from bsmamba2_pedalboard.separation_stream import SeparationStream
from bsmamba2_pedalboard.settings import EffectSettings, HasSettings
from bsmamba2_pedalboard.shared_separations import SharedSeparations


class SeparationEffect(HasSettings, Effect):
    """Passes one stem of its input, at the input's rate, length and layout.

        out = (1 - mix) · input + mix · gain · stem

    It accepts 8000 to 384000 Hz. Put it into a :class:`Board`; Pedalboard's own containers accept
    only native plugins, and for them there is :class:`Separate`.

    A stream (``reset=False``, then ``flush()``) gives the same output as the whole signal in one
    call. Each call returns as many samples as it gets, once :attr:`latency_samples` have gone in.

    Args:
        model: a name or the path of a model, as for :class:`bsmamba2.Separator`; or a Separator or
            an engine, which several effects can share.
        stem: any stem of the model, its residual included, under any of its names.
        device: ``auto``, ``cpu``, ``cuda[:N]`` or ``tensorrt[:N]``. A Separator and an engine have
            a device already.
        gain_db: gain of the stem, dB, up to 100; -inf mutes it.
        mix: 0 is the input (dry), 1 the stem (wet).
        overlap: fraction of a chunk that overlaps the next, in [0, 1). Default: the model's.
        lookahead_ms: runs a streaming model in blocks of this length, with a lookahead of this
            length: the latency is about twice this instead of a chunk. Default: whole chunks, the
            best quality.
        trust_engine: loads a TensorRT engine that another user built; it can run any code.

    Changed settings apply from the next call; ``overlap`` and ``lookahead_ms`` from the next
    signal.

    Raises:
        ModelError: the model cannot be found or used.
        DeviceError: the device does not exist, or was given with a model that has one already.
        MissingExtra: the package that runs such a model is not installed.
        TypeError, ValueError: another argument has a wrong type or is out of range.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Separator | Engine | None = None,
        *,
        stem: str = EffectSettings.stem,
        device: str = "auto",
        gain_db: float = EffectSettings.gain_db,
        mix: float = EffectSettings.mix,
        overlap: float | None = EffectSettings.overlap,
        lookahead_ms: float | None = EffectSettings.lookahead_ms,
        trust_engine: bool = False,
    ) -> None:
        if not isinstance(device, str):
            raise ArgumentTypeError(
                f"device must be a string; got {device!r}: give auto, cpu or cuda[:N]"
            )
        super().__init__()
        self._source = model
        self._requested_device = device
        self._trusts_engine = trust_engine
        self._separator = _separator(model, device, trust_engine)
        self._settings = EffectSettings(
            stem=stem, gain_db=gain_db, mix=mix, overlap=overlap, lookahead_ms=lookahead_ms
        ).for_outputs(self._outputs)
        self._latencies: dict[tuple[float | None, ...], int] = {}

    @property
    def model(self) -> str:
        """The name of the model."""
        return self._separator.manifest.name

    @property
    def device(self) -> str:
        """The device that runs the model: ``cpu``, ``cuda:0``."""
        return self._separator.device

    @property
    def _outputs(self) -> tuple[str, ...]:
        """The stems that the effect can play."""
        return self._separator.manifest.available

    @property
    def settings(self) -> EffectSettings:
        """All settings, with the overlap that is in effect."""
        if self._settings.overlap is not None:
            return self._settings
        return replace(self._settings, overlap=self._separator.manifest.overlap)

    def _change_settings(self, **changes: Any) -> None:
        changed = replace(self._settings, **changes)
        # One assignment, so that a stream on another thread sees all changes or none.
        self._settings = changed.for_outputs(self._outputs)

    @property
    def latency_samples(self) -> int:
        """Samples by which a stream's output is behind its input.

        The value is for the current stream or, if there is none, a stream at the model's rate.
        """
        if self._stream is not None:
            return self._stream.latency_samples
        return self.latency_at(self._separator.manifest.sample_rate)

    def latency_at(self, sample_rate: float) -> int:
        """Returns :attr:`latency_samples` of a stream with this rate."""
        key = (sample_rate, *self._settings.stream_settings)
        if key not in self._latencies:
            channels = self._separator.manifest.channels
            self._latencies[key] = self._separate(sample_rate, channels).latency_samples
        return self._latencies[key]

    def open_stream(
        self, sample_rate: float, channels: int, shared: SharedSeparations | None = None
    ) -> SeparationStream:
        """Opens a stream for another signal, independent of all open streams.

        Args:
            sample_rate: Hz.
            channels: number of channels in every push.
            shared: separations that effects with the same input share. None: nothing is shared.
        """
        separate = partial(self._separate, sample_rate, channels)
        key = (id(self._separator), *self._settings.stream_settings)
        separation = separate() if shared is None else shared.open(key, separate)
        return SeparationStream(separation, lambda: self._settings, sample_rate, channels)

    def _separate(self, sample_rate: float, channels: int) -> Stream:
        return self._settings.open_stream(self._separator, sample_rate, channels)

    def _open(
        self, rate: float, channels: int, size: int, shared: SharedSeparations | None, whole: bool
    ) -> SeparationStream:
        return self.open_stream(rate, channels, shared)

    def __repr__(self) -> str:
        return (
            f"<bsmamba2_pedalboard.SeparationEffect stem={self.stem!r} gain_db={self.gain_db:g} "
            f"mix={self.mix:g} at {id(self):#x}>"
        )

    def __reduce__(self) -> tuple[partial[SeparationEffect], tuple[()]]:
        """Copies and pickles the arguments; the copy loads its model again."""
        if not (self._source is None or isinstance(self._source, (str, os.PathLike))):
            raise ArgumentTypeError(
                "model must be a name or a path to copy or pickle a SeparationEffect; got "
                f"{self._source!r}: make it from the model's name or path, or make another from "
                "the same object"
            )
        return partial(
            type(self),
            self._source,
            device=self._requested_device,
            trust_engine=self._trusts_engine,
            **asdict(self._settings),
        ), ()


def _separator(
    model: str | os.PathLike[str] | Separator | Engine | None, device: str, trust_engine: bool
) -> Separator:
    if isinstance(model, Separator):
        if device != "auto":
            raise DeviceError(
                f"device must be 'auto' with a Separator, which has a device; got {device!r}: "
                "leave it out"
            )
        return model
    is_named = model is None or isinstance(model, (str, os.PathLike))
    if not is_named and (isinstance(model, type) or not callable(getattr(model, "run", None))):
        raise ArgumentTypeError(
            f"model must be a name, a path, a bsmamba2.Separator or an engine; got {model!r}: "
            "leave it out for the shipped model"
        )
    return Separator(model, device, trust_engine=trust_engine)
