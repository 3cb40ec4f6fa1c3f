"""Audio arrays: the runtime's array types, and Pedalboard's rule for the channel axis."""

from __future__ import annotations

from enum import Enum
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from bsmamba2.errors import AudioError

Audio: TypeAlias = npt.NDArray[np.float32]
"""float32 samples, (channels, samples) unless stated otherwise."""

Exact: TypeAlias = npt.NDArray[np.float64]
"""float64 samples, (channels, samples): represents every sample of 8 to 32 bits exactly."""


class Layout(Enum):
    """The axis order of a caller's array, so that results can be returned in the same order."""

    MONO = "(samples,)"
    CHANNELS_FIRST = "(channels, samples)"
    CHANNELS_LAST = "(samples, channels)"

    def restore(self, audio: Audio) -> Audio:
        """Returns (channels, samples) in this layout, as a view."""
        if self is Layout.CHANNELS_FIRST:
            return audio
        restored: Audio = audio[0] if self is Layout.MONO else audio.T
        return restored


def arrange(audio: npt.ArrayLike, channels_first: bool | None = None) -> tuple[Audio, Layout]:
    """Converts a caller's array to (channels, samples) float32; returns it and its original layout.

    One dimension is mono. Of two dimensions the smaller holds the channels, unless it is 0: then
    there are no samples, and the other dimension holds the channels. (1, 1) is one mono sample; any
    other square array is ambiguous and refused.

    Args:
        audio: float32 or float64, (samples,), (channels, samples) or (samples, channels).
        channels_first: the order of two dimensions, if known.

    Raises:
        AudioError: the array holds integers, has another number of dimensions, or is square.
    """
    array = np.asarray(audio)
    require_floats(array.dtype)
    if array.ndim not in (1, 2):
        raise AudioError(
            "audio must be (samples,), (channels, samples) or (samples, channels); got shape "
            f"{array.shape}: separate one song at a time"
        )
    layout = _layout(array.shape, channels_first)
    if layout is Layout.MONO:
        array = array[np.newaxis]
    elif layout is Layout.CHANNELS_LAST:
        array = array.T
    return to_float32(array), layout


def require_floats(dtype: np.dtype[Any]) -> None:
    """Requires float32 or float64 samples.

    Raises:
        AudioError: they have another type; the message contains an expression that converts them.
    """
    if dtype.newbyteorder("=") not in (np.float32, np.float64):
        raise AudioError(_wrong_type(dtype))


def to_float32(audio: npt.NDArray[Any]) -> Audio:
    """Converts to float32; values beyond its range become infinite, which later checks refuse."""
    with np.errstate(over="ignore"):
        return audio.astype(np.float32, copy=False)


def require_finite(audio: npt.NDArray[Any], sample_rate: float, start: int = 0) -> None:
    """Requires finite samples within the range of float32, ±3.4e38.

    Args:
        audio: (channels, samples).
        sample_rate: Hz.
        start: position of the first sample in the song, in samples.

    Raises:
        AudioError: the message names the time and the channel of the first such sample.
    """
    finite = np.abs(audio) <= np.finfo(np.float32).max
    if finite.all():
        return
    at = int(np.argmin(finite.all(axis=0)))
    channel = int(np.argmin(finite[:, at]))
    raise AudioError(
        f"audio must be finite; channel {channel + 1} is {audio[channel, at]} at "
        f"{(start + at) / sample_rate:.6f} s: repair it, e.g. with numpy.nan_to_num"
    )


def _layout(shape: tuple[int, ...], channels_first: bool | None) -> Layout:
    if len(shape) == 1:
        return Layout.MONO
    if channels_first is not None:
        return Layout.CHANNELS_FIRST if channels_first else Layout.CHANNELS_LAST
    rows, columns = shape
    if rows == columns != 1:
        raise AudioError(
            f"audio of shape {shape} could be (channels, samples) or (samples, channels): append "
            "a sample of silence, or pass channels_first"
        )
    if 0 in shape:
        return Layout.CHANNELS_FIRST if columns == 0 else Layout.CHANNELS_LAST
    return Layout.CHANNELS_FIRST if rows <= columns else Layout.CHANNELS_LAST


def _wrong_type(dtype: np.dtype[Any]) -> str:
    fix = "audio.astype(numpy.float32)"
    if dtype.kind == "i":
        fix = f"audio / {-int(np.iinfo(dtype).min)}"
    elif dtype.kind == "u":
        half = (int(np.iinfo(dtype).max) + 1) // 2
        fix = f"(audio - {half}.0) / {half}"
    return f"audio must be float32 or float64, in -1..1 at full scale; got {dtype}: pass {fix}"
