"""What Pedalboard's plugins promise of ``process``, kept here for effects written in Python.

Measured against pedalboard 0.9.26; ``tests/plugin_bridge`` holds both to one grid.
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
    """Pedalboard's contract around ``_open``, whose streams see (channels, samples) alone."""

    # Pedalboard remembers both, and so tells two samples of mono from one of stereo, and which way
    # a square array lies, once it has seen an array that reads one way only.
    _layout: Layout | None = None
    _channels = 0

    def __init__(self) -> None:
        self._stream: EffectStream | None = None
        self._form = (0.0, 0)
        self._lock = RLock()

    def process(
        self,
        input_array: npt.NDArray[Any],
        sample_rate: float,
        buffer_size: int = 8192,
        reset: bool = True,
    ) -> Audio:
        """Runs a whole signal through the effect, or the next part of one.

        Args:
            input_array: float32 or float64, (samples,), (channels, samples) or (samples, channels),
                the smaller dimension being the channels. It is not changed. A square array, or one
                of fewer samples than channels, is read the way that earlier arrays lay, until
                :meth:`reset`.
            sample_rate: Hz.
            buffer_size: of the blocks in which native plugins run, samples. It makes no difference
                to a separation.
            reset: true: the array is a whole signal, and what comes back is as long, and aligned
                with it. False: it is the next part of a stream; what comes back is what is ready,
                so later parts bring it, and :meth:`flush` the end.

        Returns:
            float32, C-contiguous, a new array in the layout of ``input_array``.

        Raises:
            TypeError: an argument of a wrong type, or samples that are no floats.
            RuntimeError: a square array before any other, or not 1 or 2 dimensions.
            ValueError: buffer_size is not positive, or a part has another rate or other channels
                than the stream that it goes on with.
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
        return _handed_out(audio, layout)

    def __call__(
        self,
        input_array: npt.NDArray[Any],
        sample_rate: float,
        buffer_size: int = 8192,
        reset: bool = True,
    ) -> Audio:
        """The same as :meth:`process`."""
        return self.process(input_array, sample_rate, buffer_size, reset)

    def flush(self) -> Audio:
        """Ends the stream; returns the rest of it, in the layout of its last part.

        All parts that came back are together as long as all that were given.
        """
        with self._lock:
            stream, self._stream = self._stream, None
            layout = self._layout or Layout.CHANNELS_FIRST
            rest = stream.flush() if stream else np.zeros((self._channels or 1, 0), np.float32)
            return _handed_out(rest, layout)

    def reset(self) -> None:
        """Ends the stream without its rest, and forgets which way earlier arrays lay."""
        with self._lock:
            self._stream = None
            self._layout = None
            self._channels = 0

    @abstractmethod
    def _open(
        self, rate: float, channels: int, size: int, shared: SharedSeparations, whole: bool
    ) -> EffectStream:
        """A new signal.

        Args:
            rate: Hz.
            channels: 1 or more.
            size: of the blocks in which native plugins run, samples.
            shared: what other effects have made of the same input.
            whole: whether the signal comes in one push, so that nobody waits for its parts. The
                stream must not write to what it is given.
        """

    def _render(self, audio: Audio, rate: float, size: int) -> Audio:
        stream = self._new_stream(audio, rate, size, whole=True)
        return np.concatenate([stream.push(audio), stream.flush()], axis=1)

    def _advance(self, audio: Audio, rate: float, size: int) -> Audio:
        with self._lock:
            form = (rate, len(audio))
            if self._stream is None:
                self._stream = self._new_stream(audio, rate, size, whole=False)
                self._form = form
            elif form != self._form:
                raise ArgumentValueError(
                    f"a stream must keep its sample_rate and channels, {self._form[0]:g} Hz and "
                    f"{self._form[1]}; {rate:g} Hz and {len(audio)} came: call flush() or reset() "
                    "between two streams"
                )
            try:
                return self._stream.push(audio)
            except BaseException:
                self._stream = None  # half a step taken: nothing that followed would be in place
                raise

    def _new_stream(self, audio: Audio, rate: float, size: int, whole: bool) -> EffectStream:
        return self._open(rate, len(audio), size, SharedSeparations(), whole)

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


def _handed_out(audio: Audio, layout: Layout) -> Audio:
    # A copy whatever comes, so that no caller's array is ever handed back as the output.
    return np.array(layout.restore(audio), np.float32, order="C")


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
