"""Separation as a native plugin: what Pedalboard's own containers take."""

from __future__ import annotations

import json
import os
from functools import partial
from inspect import getattr_static
from typing import TYPE_CHECKING, Generic, TypeVar

from pedalboard import VST3Plugin

from bsmamba2 import Separator
from bsmamba2_pedalboard import vst3
from bsmamba2_pedalboard.effect import SeparationEffect, SeparationStream
from bsmamba2_pedalboard.errors import ArgumentValueError

if TYPE_CHECKING:
    from bsmamba2.audio.array import Audio
    from bsmamba2.formats.protocols import Engine

T = TypeVar("T")
_RAW_STATE = getattr_static(VST3Plugin, "raw_state")
_PRESET_DATA = getattr_static(VST3Plugin, "preset_data")
SETTINGS = ("stem", "gain_db", "mix", "overlap", "lookahead_ms")


class _Setting(Generic[T]):
    """A setting of the effect's, which a host saves as well."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.__doc__ = getattr(SeparationEffect, name).__doc__

    def __get__(self, plugin: Separate, owner: type[Separate]) -> T:
        value: T = getattr(plugin.effect, self._name)
        return value

    def __set__(self, plugin: Separate, value: T) -> None:
        setattr(plugin.effect, self._name, value)
        plugin._save()
        if self._name in ("overlap", "lookahead_ms"):
            plugin.reset()  # the next signal has another latency, which the host asks for anew


class Separate(VST3Plugin):
    """A :class:`SeparationEffect` that stands in Pedalboard, Chain and Mix.

        board = Pedalboard([Compressor(), Separate("vocals.ckpt", stem="vocals"), Reverb()])

    Arguments, settings and errors are those of :class:`SeparationEffect`. An error in the model is
    raised where the container was called. Where a signal ends a native container goes on with
    silence, so its last chunk is separated beside silence.

    It must be made on the main thread, as every VST3. On threads that Python did not start, which
    is where AudioStream calls its plugins, the audio passes dry; for live sound load the plugin
    itself, ``pedalboard.load_plugin(str(plugin_path()))``, which has the model in another process.

    Raises:
        MissingExtra: the native library was not built.
    """

    stem = _Setting[str]("stem")
    gain_db = _Setting[float]("gain_db")
    mix = _Setting[float]("mix")
    overlap = _Setting["float | None"]("overlap")
    lookahead_ms = _Setting["float | None"]("lookahead_ms")

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
        bundle = vst3.plugin_path()
        effect = SeparationEffect(
            model,
            stem=stem,
            device=device,
            gain_db=gain_db,
            mix=mix,
            overlap=overlap,
            lookahead_ms=lookahead_ms,
            trust_engine=trust_engine,
        )
        with vst3.loading(_Live(effect)) as slot:
            super().__init__(str(bundle))
        self._effect = effect
        self._slot = slot
        self._save()
        # Loading has left it prepared, with the latency of a plugin that is not there yet.
        self.reset()

    @property
    def effect(self) -> SeparationEffect:
        """What does the work; a Board runs it without the native plugin around it."""
        return self._effect

    @property
    def model(self) -> str:
        """What the model is called."""
        return self._effect.model

    @property
    def device(self) -> str:
        """Where it runs: ``cpu``, ``cuda:0``."""
        return self._effect.device

    @property
    def latency_samples(self) -> int:
        """How far a stream's output is behind its input, at the model's own rate.

        ``reported_latency_samples`` is that of the signal that ran last.
        """
        return self._effect.latency_samples

    @property
    def raw_state(self) -> bytes:
        """The settings as a host saves them; the model is not among them."""
        state: bytes = _RAW_STATE.__get__(self)
        return state

    @raw_state.setter
    def raw_state(self, state: bytes) -> None:
        _RAW_STATE.__set__(self, state)
        self._restore()

    @property
    def preset_data(self) -> bytes:
        """The settings in the form of a .vstpreset file."""
        data: bytes = _PRESET_DATA.__get__(self)
        return data

    @preset_data.setter
    def preset_data(self, data: bytes) -> None:
        _PRESET_DATA.__set__(self, data)
        self._restore()

    def load_preset(self, preset_file_path: str) -> None:
        """Takes the settings from a .vstpreset file."""
        super().load_preset(preset_file_path)
        self._restore()

    def _save(self) -> None:
        settings = {name: getattr(self._effect, name) for name in SETTINGS}
        vst3.set_state(self._slot, json.dumps(settings).encode())

    def _restore(self) -> None:
        try:
            settings = json.loads(vst3.get_state(self._slot))
            for name in SETTINGS:
                setattr(self, name, settings[name])
        except (ValueError, TypeError, KeyError) as error:
            self._save()
            raise ArgumentValueError(
                f"the state must be one that a Separate of this model saved; {error!r}"
            ) from None

    def __repr__(self) -> str:
        return (
            repr(self._effect)
            .replace("SeparationEffect", "Separate")
            .replace(f"{id(self._effect):#x}", f"{id(self):#x}")
        )

    def __reduce__(self) -> tuple[partial[Separate], tuple[()]]:
        """Copies and pickles by what was typed: the copy loads its model anew."""
        make, _ = self._effect.__reduce__()
        return partial(type(self), *make.args, **make.keywords), ()


class _Live:
    """The effect as its slot of the native plugin sees it."""

    def __init__(self, effect: SeparationEffect) -> None:
        self._effect = effect
        self._stream: SeparationStream | None = None
        self._error: BaseException | None = None

    def latency_samples(self, sample_rate: float) -> int:
        try:
            return self._effect.latency_at(sample_rate)
        except BaseException:  # the start that follows fails of the same, and keeps it
            return 0

    def start(self, sample_rate: float, channels: int) -> None:
        self._stream = self._error = None
        try:
            self._stream = self._effect.open_stream(sample_rate, channels)
        except BaseException as error:  # it cannot pass through the host that starts
            self._error = error

    def process(self, block: Audio | None) -> None:
        if self._error:
            raise self._error
        if block is None or self._stream is None:
            raise ArgumentValueError(
                "a Separate that an AudioStream has prepared must be reset before other use: call "
                "its reset(), or give reset=True"
            )
        ready = self._stream.push(block)
        missing = block.shape[1] - ready.shape[1]
        block[:, :missing] = 0
        block[:, missing:] = ready
