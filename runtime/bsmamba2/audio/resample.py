"""Streaming sample rate conversion: output aligned with the input, and of an exact length.

The filter is libsoxr's best. At a ratio of 2 it is a half-band filter, flat to 1e-7. At any other
ratio its gain falls by up to 7e-4 (0.006 dB) at 0.9 of the lower Nyquist frequency, but by at most
1e-6 below half of it. So other ratios are applied at twice the lower rate, where the band ends at
half the Nyquist frequency:

    8000 → 16000 → 44100            44100 → 88200 → 96000 → 48000

A sine below 0.9 of the lower Nyquist frequency keeps its amplitude to 1e-5.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import soxr

from bsmamba2.audio.fifo import Fifo
from bsmamba2.audio.latency import Delay
from bsmamba2.errors import AudioError

if TYPE_CHECKING:
    from bsmamba2.audio.array import Audio

MIN_RATE, MAX_RATE = 8000, 384000


def require_rate(sample_rate: float) -> None:
    """Requires a supported sample rate.

    Raises:
        AudioError: sample_rate is out of range.
    """
    if not MIN_RATE <= sample_rate <= MAX_RATE:
        raise AudioError(
            f"sample_rate must be {MIN_RATE} to {MAX_RATE} Hz; got {sample_rate}: pass the rate in "
            "Hz, or resample the audio first"
        )


class Resampler:
    """Converts a stream from one rate to another with linear-phase filters.

    libsoxr compensates for their delay, so sample k of the output is the input at the time
    k / out_rate. At equal rates samples pass unchanged. The output does not depend on how the input
    is split into pushes, and its length so far depends only on how many samples were received:
    libsoxr works in blocks, so samples that it outputs early are held until :attr:`delay` allows.

    Args:
        in_rate: Hz.
        out_rate: Hz.
        channels: number of channels of every push.

    Raises:
        AudioError: a rate is out of range.
    """

    def __init__(self, in_rate: float, out_rate: float, channels: int) -> None:
        require_rate(in_rate)
        require_rate(out_rate)
        self._ratio = out_rate / in_rate
        self._channels = channels
        self._received = 0
        self._emitted = 0
        rates = _rates(in_rate, out_rate)
        self._stages = _stages(rates, channels)
        self._early: Fifo[np.float32] = Fifo(channels, np.float32)
        self.delay = Delay(
            Fraction(float(out_rate)) / Fraction(float(in_rate)),
            _delay_samples(rates) if self._stages else 0,
        )

    def push(self, audio: Audio) -> Audio:
        """Takes (channels, n); returns (channels, m), the output that is available so far."""
        self._received += audio.shape[-1]
        if not self._stages:
            return audio
        self._early.append(_process(self._stages, audio, last=False))
        count = min(self.delay.output_samples(self._received) - self._emitted, len(self._early))
        self._emitted += count
        return self._early.take(count)

    def flush(self, length: int | None = None) -> Audio:
        """Ends the stream; returns (channels, m), the rest of the output.

        Args:
            length: total length of the output, in samples. Default: round(input · out_rate /
                in_rate). When resampling back to an original rate, pass the original length.
        """
        if length is None:
            length = round(self._received * self._ratio)
        if not self._stages or length == 0:
            return np.zeros((self._channels, 0), np.float32)
        # Rounding there and back may leave the output a sample or two short, so silence follows the
        # input until the filter has output the whole length.
        silence = max(0, math.ceil((length + 1) / self._ratio) - self._received)
        silent = np.zeros((self._channels, silence), np.float32)
        self._early.append(_process(self._stages, silent, last=True))
        return self._early.take(length - self._emitted)


def _stages(rates: tuple[float, ...], channels: int) -> list[Any]:
    return [soxr.ResampleStream(*pair, channels, "float32", "VHQ") for pair in pairwise(rates)]


def _process(stages: list[Any], audio: Audio, last: bool) -> Audio:
    frames = np.ascontiguousarray(audio.T)
    for stage in stages:
        frames = stage.resample_chunk(frames, last)
    return frames.T


@cache
def _delay_samples(rates: tuple[float, ...]) -> int:
    """Measures the most output samples that libsoxr holds back, and adds a tenth.

    The number depends on libsoxr's block lengths, which it does not report. A longer measurement
    finds up to a twentieth more.
    """
    stages, ratio, piece = _stages(rates, 1), rates[-1] / rates[0], 64
    silent = np.zeros((1, piece), np.float32)
    emitted, most = 0, 0.0
    for received in range(piece, 1 << 16, piece):
        most = max(most, received * ratio - emitted)
        emitted += _process(stages, silent, last=False).shape[-1]
    return math.ceil(1.1 * most)


def _rates(start: float, end: float) -> tuple[float, ...]:
    """Returns the rates along the way, including both ends; see the module's docstring."""
    low, high = sorted((start, end))
    rates: tuple[float, ...]
    if low == high:
        return (low,)
    if high == 2 * low:
        rates = (low, high)
    elif high > 2 * low:
        rates = (low, 2 * low, high)
    else:
        rates = (low, 2 * low, 2 * high, high)
    return rates if start < end else rates[::-1]
