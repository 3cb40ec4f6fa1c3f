"""Arrays of audio: the runtime's one type, and Pedalboard's rule for which axis is the channels."""

from __future__ import annotations

from enum import Enum
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from bsmamba2.errors import AudioError

Audio: TypeAlias = npt.NDArray[np.float32]
"""float32 samples, (channels, samples) unless said otherwise."""

Exact: TypeAlias = npt.NDArray[np.float64]
"""float64 samples, (channels, samples): holds every sample of 8 to 32 bits to the bit."""


class Layout(Enum):
    """How a caller's array lies, so that what comes back lies the same way."""

    MONO = "(samples,)"
    CHANNELS_FIRST = "(channels, samples)"
    CHANNELS_LAST = "(samples, channels)"

    def restore(self, audio: Audio) -> Audio:
        """(channels, samples) turned back to this layout, without a copy where none is needed."""
        if self is Layout.CHANNELS_FIRST:
            return audio
        restored: Audio = audio[0] if self is Layout.MONO else audio.T
        return restored


def arrange(audio: npt.ArrayLike, channels_first: bool | None = None) -> tuple[Audio, Layout]:
    """A caller's array as (channels, samples) float32, and the layout it came in.

    One dimension is mono. Of two dimensions the smaller is the channels; where one of them is 0
    there are no samples and the other is the channels. (1, 1) is one sample of mono either way; any
    other square array could be read both ways and is refused.

    Args:
        audio: float32 or float64, (samples,), (channels, samples) or (samples, channels).
        channels_first: which way two dimensions lie, where that is known.

    Raises:
        AudioError: integers, another number of dimensions, or a square array.
    """
    array = np.asarray(audio)
    require_floats(array.dtype)
    if array.ndim not in (1, 2):
        raise AudioError(
            "audio must be (samples,), (channels, samples) or (samples, channels); an array of "
            f"shape {array.shape} came: separate one song at a time"
        )
    layout = _layout(array.shape, channels_first)
    if layout is Layout.MONO:
        array = array[np.newaxis]
    elif layout is Layout.CHANNELS_LAST:
        array = array.T
    return to_float32(array), layout


def require_floats(dtype: np.dtype[Any]) -> None:
    """Refuses samples that are neither float32 nor float64.

    Raises:
        AudioError: with the line that makes them so.
    """
    if dtype.newbyteorder("=") not in (np.float32, np.float64):
        raise AudioError(_wrong_type(dtype))


def to_float32(audio: npt.NDArray[Any]) -> Audio:
    """The samples in float32; what is too large for it becomes infinite, to be refused as such."""
    with np.errstate(over="ignore"):
        return audio.astype(np.float32, copy=False)


def require_finite(audio: npt.NDArray[Any], sample_rate: float, start: int = 0) -> None:
    """Refuses NaN, infinite samples, and what is infinite in float32, ±3.4e38.

    Args:
        audio: (channels, samples).
        sample_rate: Hz.
        start: where these samples stand in the song, in samples.

    Raises:
        AudioError: with the time and the channel of the first.
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
            "a sample of silence, or say which with channels_first"
        )
    if 0 in shape:
        return Layout.CHANNELS_FIRST if columns == 0 else Layout.CHANNELS_LAST
    return Layout.CHANNELS_FIRST if rows <= columns else Layout.CHANNELS_LAST


def _wrong_type(dtype: np.dtype[Any]) -> str:
    mend = "audio.astype(numpy.float32)"
    if dtype.kind == "i":
        mend = f"audio / {-int(np.iinfo(dtype).min)}"
    elif dtype.kind == "u":
        half = (int(np.iinfo(dtype).max) + 1) // 2
        mend = f"(audio - {half}.0) / {half}"
    return f"audio must be float32 or float64, in -1..1 at full scale; {dtype} came: give {mend}"
