"""Separation as a native plugin, for Pedalboard's own containers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from inspect import getattr_static
from typing import Any, Concatenate, ParamSpec

from pedalboard import VST3Plugin

from bsmamba2.audio.array import Audio
from bsmamba2_pedalboard import python_backend
from bsmamba2_pedalboard.effect import SeparationEffect
from bsmamba2_pedalboard.errors import ArgumentValueError
from bsmamba2_pedalboard.separation_stream import SeparationStream
from bsmamba2_pedalboard.settings import STREAM_SETTINGS, EffectSettings, HasSettings

P = ParamSpec("P")
Constructor = Callable[Concatenate[Any, P], None]
_RAW_STATE = getattr_static(VST3Plugin, "raw_state")
_PRESET_DATA = getattr_static(VST3Plugin, "preset_data")


def _with_arguments_of(original: Constructor[P]) -> Callable[[Constructor[...]], Constructor[P]]:
    """Gives a constructor the signature of another, for type checkers and ``help``."""
    return wraps(original)


class Separate(HasSettings, VST3Plugin):
    """A :class:`SeparationEffect` for Pedalboard, Chain and Mix.

        board = Pedalboard([Compressor(), Separate("vocals.ckpt", stem="vocals"), Reverb()])

    Arguments, settings and errors are those of :class:`SeparationEffect`. An error in the model is
    raised by the call of the container. Native containers continue a signal with silence, so its
    last chunk is separated together with silence.

    Like every VST3, it must be created on the main thread. On threads that Python did not start,
    such as AudioStream's, it passes audio through unprocessed. For live audio load the plugin
    itself, ``pedalboard.load_plugin(str(plugin_path()))``, whose model runs in another process.

    Raises:
        MissingExtra: the native library was not built.
    """

    @_with_arguments_of(SeparationEffect.__init__)
    def __init__(self, *arguments: Any, **options: Any) -> None:
        bundle = python_backend.plugin_path()
        effect = SeparationEffect(*arguments, **options)
        with python_backend.loading(_SeparationCallbacks(effect)) as slot:
            super().__init__(str(bundle))
        self._effect = effect
        self._slot = slot
        self._save()
        # Loading prepared the plugin before its effect was connected, so without its latency.
        self.reset()

    @property
    def effect(self) -> SeparationEffect:
        """The effect that does the work; a Board runs it without the native plugin."""
        return self._effect

    @property
    def model(self) -> str:
        """The name of the model."""
        return self._effect.model

    @property
    def device(self) -> str:
        """The device that runs the model: ``cpu``, ``cuda:0``."""
        return self._effect.device

    @property
    def settings(self) -> EffectSettings:
        """All settings, with the overlap that is in effect."""
        return self._effect.settings

    def _change_settings(self, **changes: Any) -> None:
        self._effect._change_settings(**changes)
        self._save()
        if any(name in changes for name in STREAM_SETTINGS):
            self.reset()  # the host must query the latency of the next signal again

    @property
    def latency_samples(self) -> int:
        """Samples by which a stream's output is behind its input, at the model's rate.

        ``reported_latency_samples`` is that of the last signal.
        """
        return self._effect.latency_samples

    @property
    def raw_state(self) -> bytes:
        """The settings as a host saves them, without the model."""
        state: bytes = _RAW_STATE.__get__(self)
        return state

    @raw_state.setter
    def raw_state(self, state: bytes) -> None:
        _RAW_STATE.__set__(self, state)
        self._restore()

    @property
    def preset_data(self) -> bytes:
        """The settings in the format of a .vstpreset file."""
        data: bytes = _PRESET_DATA.__get__(self)
        return data

    @preset_data.setter
    def preset_data(self, data: bytes) -> None:
        _PRESET_DATA.__set__(self, data)
        self._restore()

    def load_preset(self, preset_file_path: str) -> None:
        """Reads the settings from a .vstpreset file."""
        super().load_preset(preset_file_path)
        self._restore()

    def _save(self) -> None:
        python_backend.set_state(self._slot, self.settings.to_state())

    def _restore(self) -> None:
        """Applies the state that a host has set; if it is invalid, restores the previous state."""
        try:
            restored = EffectSettings.from_state(
                python_backend.get_state(self._slot), self._effect._outputs
            )
            self._change_settings(**vars(restored))
        except ArgumentValueError:
            self._save()
            raise

    def __repr__(self) -> str:
        return (
            repr(self._effect)
            .replace("SeparationEffect", "Separate")
            .replace(f"{id(self._effect):#x}", f"{id(self):#x}")
        )

    def __reduce__(self) -> tuple[partial[Separate], tuple[()]]:
        """Copies and pickles the arguments; the copy loads its model again."""
        create_effect, _ = self._effect.__reduce__()
        return partial(type(self), *create_effect.args, **create_effect.keywords), ()


class _SeparationCallbacks:
    """Connects an instance of the native plugin with its effect."""

    def __init__(self, effect: SeparationEffect) -> None:
        self._effect = effect
        self._stream: SeparationStream | None = None
        self._error: BaseException | None = None

    def latency_samples(self, sample_rate: float) -> int:
        try:
            return self._effect.latency_at(sample_rate)
        except BaseException:  # start() is called next: it gets the same error and keeps it
            return 0

    def start(self, sample_rate: float, channels: int) -> None:
        self._stream = self._error = None
        try:
            self._stream = self._effect.open_stream(sample_rate, channels)
        except BaseException as error:  # an exception cannot pass through the host
            self._error = error

    def process(self, block: Audio | None) -> None:
        if self._error:
            raise self._error
        if block is None or self._stream is None:
            raise ArgumentValueError(
                "a Separate that an AudioStream has used must be reset before other use; got a "
                "block without a signal: call its reset(), or give reset=True"
            )
        ready = self._stream.push(block)
        missing = block.shape[1] - ready.shape[1]
        block[:, :missing] = 0
        block[:, missing:] = ready
