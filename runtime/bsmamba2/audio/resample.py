"""Another sample rate, as a stream: no delay, and a length that is exact.

The filter is libsoxr's best. At the ratio 2 it is a half-band filter, flat to 1e-7; at any other
it falls by up to 7e-4 (0.006 dB) at 0.9 of the lower Nyquist frequency, but below half of it by no
more than 1e-6. So other ratios are taken at twice the lower rate, where the band ends at half:

    8000 → 16000 → 44100            44100 → 88200 → 96000 → 48000

and a sine below 0.9 of the lower Nyquist frequency keeps its amplitude to 1e-5.
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
    """Refuses a rate that no music has.

    Raises:
        AudioError: sample_rate is out of range.
    """
    if not MIN_RATE <= sample_rate <= MAX_RATE:
        raise AudioError(
            f"sample_rate must be {MIN_RATE} to {MAX_RATE} Hz; {sample_rate} came: give the rate "
            "in Hz, or resample the audio first"
        )


class Resampler:
    """A stream from one rate to another through linear-phase filters.

    libsoxr makes up for their delay, so sample k of the output stands at the time
    k / out_rate of the input. Where the rates are equal the samples pass untouched. The output does
    not depend on how the input is cut into pushes, and how much of it is out depends on nothing but
    how much came: libsoxr works in blocks, so what comes early waits, see :attr:`delay`.

    Args:
        in_rate: Hz.
        out_rate: Hz.
        channels: of every push.

    Raises:
        AudioError: a rate is out of range.
    """

    def __init__(self, in_rate: float, out_rate: float, channels: int) -> None:
        require_rate(in_rate)
        require_rate(out_rate)
        self._ratio = out_rate / in_rate
        self._channels = channels
        self._came = 0
        self._went = 0
        rates = _rates(in_rate, out_rate)
        self._stages = _stages(rates, channels)
        self._early: Fifo[np.float32] = Fifo(channels, np.float32)
        self.delay = Delay(
            Fraction(float(out_rate)) / Fraction(float(in_rate)),
            _delay_samples(rates) if self._stages else 0,
        )

    def push(self, audio: Audio) -> Audio:
        """Takes (channels, n); returns (channels, m), the output that is certain by now."""
        self._came += audio.shape[-1]
        if not self._stages:
            return audio
        self._early.append(_process(self._stages, audio, last=False))
        out = min(self.delay.out(self._came) - self._went, len(self._early))
        self._went += out
        return self._early.take(out)

    def flush(self, length: int | None = None) -> Audio:
        """Ends the stream; returns (channels, m), the rest of the output.

        Args:
            length: of the whole output, in samples. Default: round(input · out_rate / in_rate). On
                the way back to a rate that the audio came from, its length there.
        """
        if length is None:
            length = round(self._came * self._ratio)
        if not self._stages or length == 0:
            return np.zeros((self._channels, 0), np.float32)
        # Silence after the end lets the filter ring out as far as the length asks, where rounding
        # there and back would end a sample or two short.
        silence = max(0, math.ceil((length + 1) / self._ratio) - self._came)
        silent = np.zeros((self._channels, silence), np.float32)
        self._early.append(_process(self._stages, silent, last=True))
        return self._early.take(length - self._went)


def _stages(rates: tuple[float, ...], channels: int) -> list[Any]:
    return [soxr.ResampleStream(*pair, channels, "float32", "VHQ") for pair in pairwise(rates)]


def _process(stages: list[Any], audio: Audio, last: bool) -> Audio:
    frames = np.ascontiguousarray(audio.T)
    for stage in stages:
        frames = stage.resample_chunk(frames, last)
    return frames.T


@cache
def _delay_samples(rates: tuple[float, ...]) -> int:
    """The most that libsoxr holds back, in samples of the output: measured, and a tenth more.

    It depends on the lengths of its blocks, which it does not tell. A longer measurement finds a
    little more, by up to a twentieth.
    """
    stages, ratio, piece = _stages(rates, 1), rates[-1] / rates[0], 64
    silent = np.zeros((1, piece), np.float32)
    gone, most = 0, 0.0
    for came in range(piece, 1 << 16, piece):
        most = max(most, came * ratio - gone)
        gone += _process(stages, silent, last=False).shape[-1]
    return math.ceil(1.1 * most)


def _rates(start: float, end: float) -> tuple[float, ...]:
    """The rates on the way, both ends included; see above."""
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
