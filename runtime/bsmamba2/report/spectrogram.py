"""Power over frequency and time, in rows that are spaced as the ear hears them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bsmamba2.audio.array import Audio
from bsmamba2.audio.stft import hann
from bsmamba2.report.png import COLOURS

ROWS = 96
RANGE_DB = 80.0
"""From the darkest colour to the lightest."""

_FRAME_S = 0.046
_LOWEST_HZ, _HIGHEST_HZ = 40.0, 16000.0
_TICKS_HZ = (300, 1000, 3000, 10000)


class Bands:
    """Sums the power of each frame in :data:`ROWS` bands, which are equally wide in mel.

    Args:
        sample_rate: Hz.
        has_sum: whether the sum of the stems is the first track.
    """

    def __init__(self, sample_rate: float, has_sum: bool) -> None:
        self._has_sum = has_sum
        self.frame = 1 << round(np.log2(_FRAME_S * sample_rate))
        """Length of a frame, samples."""
        self._highest_hz = min(_HIGHEST_HZ, sample_rate / 2)
        mels = np.linspace(_mel(_LOWEST_HZ), _mel(self._highest_hz), ROWS + 1)
        edges = 700 * (10 ** (mels / 2595) - 1) / sample_rate * self.frame
        bins = np.arange(self.frame // 2 + 1)[:, np.newaxis]
        first, last = np.floor(edges[:-1]), np.ceil(edges[1:]) - 1
        within = (bins >= first) & (bins <= np.maximum(first, last))
        # A sine of full scale has power 1 in its bin.
        scale = (2 / hann(self.frame).sum()) ** 2
        self._weights = (within / within.sum(axis=0) * scale).astype(np.float32)

    def power(self, frames: Audio, channels: int) -> Audio:
        """Transforms (stems · channels, frames, frame) to (tracks, ROWS, frames).

        The lowest frequency is first. The power is the mean of the channels.
        """
        spectrum = np.fft.rfft(frames * hann(self.frame))
        spectrum = spectrum.reshape(-1, channels, *spectrum.shape[1:])
        if self._has_sum:
            spectrum = np.concatenate([spectrum.sum(axis=0, keepdims=True), spectrum])
        power = np.square(spectrum.real) + np.square(spectrum.imag)
        return np.swapaxes(power.mean(axis=1) @ self._weights, -1, -2)

    def ticks(self) -> list[tuple[float, str]]:
        """Returns frequencies to label: the height, 0 (bottom) to 1, and the text."""
        low, high = _mel(_LOWEST_HZ), _mel(self._highest_hz)
        shown = [hz for hz in _TICKS_HZ if hz < 0.9 * self._highest_hz]
        return [
            ((_mel(hz) - low) / (high - low), f"{hz / 1000:g}k" if hz >= 1000 else f"{hz}")
            for hz in shown
        ]


def picture(power: Audio, top_db: float) -> npt.NDArray[np.uint8]:
    """Returns the values of an image, (ROWS, columns), the highest frequency first.

    Args:
        power: (ROWS, columns).
        top_db: what the lightest colour stands for; the darkest is :data:`RANGE_DB` lower.
    """
    level = (decibels(power) - top_db) / RANGE_DB + 1
    return (level.clip(0, 1) * (COLOURS - 1)).round().astype(np.uint8)[::-1]


def decibels(power: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Returns 10 · log10(power), at least -200 dB."""
    return 10 * np.log10(np.maximum(np.asarray(power, np.float64), 1e-20))


def _mel(hz: float) -> float:
    return float(2595 * np.log10(1 + hz / 700))
