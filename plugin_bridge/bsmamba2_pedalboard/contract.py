"""The contract of Pedalboard's ``process``, for effects written in Python.

It was measured with pedalboard 0.9.26; ``tests/plugin_bridge`` tests both on the same inputs.
"""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from numbers import Real
from threading import RLock
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from bsmamba2 import AudioError
from bsmamba2.audio.array import Audio, Layout, arrange, to_float32
from bsmamba2_pedalboard.errors import ArgumentTypeError, ArgumentValueError, ArrayShapeError
from bsmamba2_pedalboard.shared_separations import SharedSeparations
from bsmamba2_pedalboard.streams import EffectStream


class Effect(ABC):
    """Implements ``process`` with ``_open``, whose streams only see (channels, samples)."""

    # As in Pedalboard, both come from the last array with an unambiguous layout. They distinguish
    # two samples of mono from one of stereo, and give the orientation of a square array.
    _layout: Layout | None = None
    _channels = 0

    def __init__(self) -> None:
        self._stream: EffectStream | None = None
        self._format = (0.0, 0)
        self._lock = RLock()

    def process(
        self,
        input_array: npt.NDArray[Any],
        sample_rate: float,
        buffer_size: int = 8192,
        reset: bool = True,
    ) -> Audio:
        """Runs a whole signal, or the next part of one, through the effect.

        Args:
            input_array: float32 or float64, (samples,), (channels, samples) or (samples, channels),
                the smaller dimension being the channels. It is not changed. A square array, or one
                with fewer samples than channels, has the orientation of earlier arrays, until
                :meth:`reset`.
            sample_rate: Hz.
            buffer_size: samples in a block of native plugins. It does not affect a separation.
            reset: True: the array is a whole signal, and the output has its length and is aligned
                with it. False: it is the next part of a stream; the output is what is ready, later
                calls return more, and :meth:`flush` returns the rest.

        Returns:
            float32, C-contiguous, a new array in the layout of ``input_array``.

        Raises:
            TypeError: an argument has a wrong type, or the samples are not floats.
            RuntimeError: the first array is square, or an array does not have 1 or 2 dimensions.
            ValueError: buffer_size is not positive, or a part differs from its stream in rate or
                channels.
        """
        rate = _require_rate(sample_rate)
        size = _require_buffer_size(buffer_size)
        audio, layout = self._arrange(input_array)
        if reset:
            self._stream = None
            if audio.size:
                audio = self._render(audio, rate, size)
        elif len(audio):
            audio = self._advance(audio, rate, size)
        return _copy_in_layout(audio, layout)

    def __call__(
        self,
        input_array: npt.NDArray[Any],
        sample_rate: float,
        buffer_size: int = 8192,
        reset: bool = True,
    ) -> Audio:
        """Does the same as :meth:`process`."""
        return self.process(input_array, sample_rate, buffer_size, reset)

    def flush(self) -> Audio:
        """Ends the stream; returns its remaining samples in the layout of its last part.

        With them, the output of the stream is as long as its input.
        """
        with self._lock:
            stream, self._stream = self._stream, None
            layout = self._layout or Layout.CHANNELS_FIRST
            rest = stream.flush() if stream else np.zeros((self._channels or 1, 0), np.float32)
            return _copy_in_layout(rest, layout)

    def reset(self) -> None:
        """Discards the stream with its remaining samples, and forgets the orientation of arrays."""
        with self._lock:
            self._stream = None
            self._layout = None
            self._channels = 0

    @abstractmethod
    def _open(
        self, rate: float, channels: int, size: int, shared: SharedSeparations | None, whole: bool
    ) -> EffectStream:
        """Opens the stream of a new signal.

        Args:
            rate: Hz.
            channels: 1 or more.
            size: samples in a block of native plugins.
            shared: separations that effects with the same input share. None: nothing is shared.
            whole: whether the whole signal arrives in one push. Then the stream may return it late,
                and it must not write to its input.
        """

    def _render(self, audio: Audio, rate: float, size: int) -> Audio:
        stream = self._open(rate, len(audio), size, None, whole=True)
        return np.concatenate([stream.push(audio), stream.flush()], axis=1)

    def _advance(self, audio: Audio, rate: float, size: int) -> Audio:
        with self._lock:
            received = (rate, len(audio))
            if self._stream is None:
                self._stream = self._open(rate, len(audio), size, None, whole=False)
                self._format = received
            elif received != self._format:
                raise ArgumentValueError(
                    f"a stream must keep its sample_rate and channels, {self._format[0]:g} Hz and "
                    f"{self._format[1]}; got {rate:g} Hz and {len(audio)}: call flush() or reset() "
                    "between two streams"
                )
            try:
                return self._stream.push(audio)
            except BaseException:
                self._stream = None  # it may have stopped half-way, so later output would shift
                raise

    def _arrange(self, array: npt.NDArray[Any]) -> tuple[Audio, Layout]:
        if not isinstance(array, np.ndarray):
            raise ArgumentTypeError(
                f"input_array must be a numpy array; got {type(array).__name__}: give "
                "numpy.asarray(input_array, numpy.float32)"
            )
        _require_floats(array.dtype)
        layout = self._recall(array.shape)
        if layout is None:
            try:
                audio, layout = arrange(array)
            except AudioError as error:
                raise ArrayShapeError(str(error)) from None
        else:
            audio = layout.restore(to_float32(array))  # a transposition is its own inverse
        self._layout = layout
        self._channels = len(audio) or self._channels  # an array without channels changes nothing
        return audio, layout

    def _recall(self, shape: tuple[int, ...]) -> Layout | None:
        """Returns the layout of an array of this shape if earlier arrays determine it."""
        if len(shape) != 2 or self._layout is None:
            return None
        rows, columns = shape
        if rows == columns != 1:
            last = self._layout is Layout.CHANNELS_LAST
            return Layout.CHANNELS_LAST if last else Layout.CHANNELS_FIRST
        if rows == self._channels:
            return Layout.CHANNELS_FIRST
        return Layout.CHANNELS_LAST if columns == self._channels else None


def _copy_in_layout(audio: Audio, layout: Layout) -> Audio:
    # Always a copy, so that the output never shares memory with the caller's input.
    return np.array(layout.restore(audio), np.float32, order="C")


def _require_rate(sample_rate: object) -> float:
    # The range is checked by each effect: most of Pedalboard's accept any rate.
    if not isinstance(sample_rate, Real):
        raise ArgumentTypeError(
            f"sample_rate must be a number of Hz; got {sample_rate!r}: give e.g. 44100"
        )
    return float(sample_rate)


def _require_buffer_size(buffer_size: SupportsIndex) -> int:
    try:
        size = operator.index(buffer_size)
    except TypeError:
        raise ArgumentTypeError(
            f"buffer_size must be an integer; got {buffer_size!r}: give e.g. 8192"
        ) from None
    if size < 1:  # with 0 a native plugin never returns
        raise ArgumentValueError(
            f"buffer_size must be 1 sample or more; got {buffer_size!r}: leave it out for 8192"
        )
    return size


def _require_floats(dtype: np.dtype[Any]) -> None:
    try:
        arrange(np.empty(0, dtype))  # the runtime's message, before the shape is checked
    except AudioError as error:
        raise ArgumentTypeError(str(error)) from None
