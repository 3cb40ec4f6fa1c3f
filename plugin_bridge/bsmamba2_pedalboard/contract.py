"""What Pedalboard's plugins promise of ``process``, kept here for effects written in Python.

Measured against pedalboard 0.9.26; ``tests/plugin_bridge`` holds both to one grid.
"""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from numbers import Real
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from bsmamba2 import AudioError, Error
from bsmamba2.array import Audio, Layout, arrange, to_float32


class ArgumentTypeError(Error, TypeError):
    """An argument of a type that is not taken; a TypeError, as Pedalboard raises."""


class ArgumentValueError(Error, ValueError):
    """An argument out of its range; a ValueError, as Pedalboard raises."""


class ArrayShapeError(AudioError, RuntimeError):
    """An array that reads as no audio or as two; a RuntimeError, as Pedalboard raises."""


class Effect(ABC):
    """Pedalboard's contract around ``_render``, which sees (channels, samples) alone."""

    # Pedalboard remembers both, and so tells two samples of mono from one of stereo, and which way
    # a square array lies, once it has seen an array that reads one way only.
    _layout: Layout | None = None
    _channels = 0

    def process(
        self,
        input_array: npt.NDArray[Any],
        sample_rate: float,
        buffer_size: int = 8192,
        reset: bool = True,
    ) -> Audio:
        """Runs a whole signal through the effect.

        Args:
            input_array: float32 or float64, (samples,), (channels, samples) or (samples, channels),
                the smaller dimension being the channels. It is not changed. A square array, or one
                of fewer samples than channels, is read the way that earlier arrays lay, until
                :meth:`reset`.
            sample_rate: Hz.
            buffer_size: of the blocks in which native plugins run, samples. It makes no difference
                to a separation.
            reset: must be true: there is no streaming yet, so each call is a signal of its own.

        Returns:
            float32, C-contiguous, a new array in the shape of ``input_array``, aligned with it.

        Raises:
            TypeError: an argument of a wrong type, or samples that are no floats.
            RuntimeError: a square array before any other, or not 1 or 2 dimensions.
            ValueError: buffer_size is not positive, or reset is false.
        """
        rate = _require_rate(sample_rate)
        size = _require_buffer_size(buffer_size)
        if not reset:
            raise ArgumentValueError(
                f"reset must be True; {reset!r} came, and {type(self).__name__} does not stream: "
                "call it once, with reset=True, on the whole signal"
            )
        audio, layout = self._arrange(input_array)
        if audio.size:
            audio = self._render(audio, rate, size)
        # A copy whatever comes, so that no caller's array is ever handed back as the output.
        return np.array(layout.restore(audio), np.float32, order="C")

    def __call__(
        self,
        input_array: npt.NDArray[Any],
        sample_rate: float,
        buffer_size: int = 8192,
        reset: bool = True,
    ) -> Audio:
        """The same as :meth:`process`."""
        return self.process(input_array, sample_rate, buffer_size, reset)

    def reset(self) -> None:
        """Forgets which way earlier arrays lay; there is nothing else to forget."""
        self._layout = None
        self._channels = 0

    @abstractmethod
    def _render(self, audio: Audio, sample_rate: float, buffer_size: int) -> Audio:
        """(channels, samples), neither of them 0, to the same shape; must not write to ``audio``.

        The shape is never in doubt here, be it (2, 2) or (2, 1).
        """

    def _arrange(self, array: npt.NDArray[Any]) -> tuple[Audio, Layout]:
        if not isinstance(array, np.ndarray):
            raise ArgumentTypeError(
                f"input_array must be a numpy array; {type(array).__name__} came: give "
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
            # Turning an array over is its own inverse.
            audio = layout.restore(to_float32(array))
        self._layout = layout
        self._channels = len(audio) or self._channels  # no channels say nothing of the next array
        return audio, layout

    def _recall(self, shape: tuple[int, ...]) -> Layout | None:
        """How an array of this shape lies, as far as earlier ones tell; else None."""
        if len(shape) != 2 or self._layout is None:
            return None
        rows, columns = shape
        if rows == columns != 1:
            last = self._layout is Layout.CHANNELS_LAST
            return Layout.CHANNELS_LAST if last else Layout.CHANNELS_FIRST
        if rows == self._channels:
            return Layout.CHANNELS_FIRST
        return Layout.CHANNELS_LAST if columns == self._channels else None


def require_number(
    name: str, value: object, low: float, high: float, allowed: str, mend: str
) -> float:
    """The value as a float.

    Raises:
        ArgumentTypeError: it is no number.
        ArgumentValueError: it is not within low and high.
    """
    if not isinstance(value, Real):
        raise ArgumentTypeError(f"{name} must be a number, {allowed}; {value!r} came: {mend}")
    number = float(value)
    if not low <= number <= high:
        raise ArgumentValueError(f"{name} must be {allowed}; {value!r} came: {mend}")
    return number


def _require_rate(sample_rate: object) -> float:
    # Which rates there are is for each effect to say: most of Pedalboard's take any.
    if not isinstance(sample_rate, Real):
        raise ArgumentTypeError(
            f"sample_rate must be a number of Hz; {sample_rate!r} came: give e.g. 44100"
        )
    return float(sample_rate)


def _require_buffer_size(buffer_size: SupportsIndex) -> int:
    try:
        size = operator.index(buffer_size)
    except TypeError:
        raise ArgumentTypeError(
            f"buffer_size must be an integer of samples; {buffer_size!r} came: give e.g. 8192"
        ) from None
    if size < 1:  # with 0 a native plugin never returns
        raise ArgumentValueError(
            f"buffer_size must be 1 sample or more; {buffer_size!r} came: leave it out for 8192"
        )
    return size


def _require_floats(dtype: np.dtype[Any]) -> None:
    try:
        arrange(np.empty(0, dtype))  # the runtime's words, before any question of shape
    except AudioError as error:
        raise ArgumentTypeError(str(error)) from None
