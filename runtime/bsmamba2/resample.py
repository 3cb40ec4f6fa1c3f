"""Another sample rate, as a stream: no delay, and a length that is exact."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import soxr

from bsmamba2.errors import AudioError

if TYPE_CHECKING:
    from bsmamba2.array import Audio

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
    """A stream from one rate to another through libsoxr's best linear-phase filter.

    libsoxr makes up for its filter's delay, so sample k of the output stands at the time
    k / out_rate of the input. Where the rates are equal the samples pass untouched. The output does
    not depend on how the input is cut into pushes.

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
        self._came = 0
        self._went = 0
        self._soxr: soxr.ResampleStream | None = None
        if in_rate != out_rate:
            self._soxr = soxr.ResampleStream(in_rate, out_rate, channels, "float32", "VHQ")
        self._channels = channels

    def push(self, audio: Audio) -> Audio:
        """Takes (channels, n); returns (channels, m), the output that is certain by now."""
        self._came += audio.shape[-1]
        if self._soxr is None:
            return audio
        return self._process(audio, last=False)

    def flush(self, length: int | None = None) -> Audio:
        """Ends the stream; returns (channels, m), the rest of the output.

        Args:
            length: of the whole output, in samples. Default: round(input · out_rate / in_rate). On
                the way back to a rate that the audio came from, its length there.
        """
        if length is None:
            length = round(self._came * self._ratio)
        if self._soxr is None or length == 0:
            return np.zeros((self._channels, 0), np.float32)
        # Silence after the end lets the filter ring out as far as the length asks, where rounding
        # there and back would end a sample or two short.
        silence = max(0, math.ceil((length + 1) / self._ratio) - self._came)
        rest = length - self._went
        tail = self._process(np.zeros((self._channels, silence), np.float32), last=True)
        return tail[:, :rest]

    def _process(self, audio: Audio, last: bool) -> Audio:
        assert self._soxr is not None
        frames = np.ascontiguousarray(audio.T)
        resampled: Audio = self._soxr.resample_chunk(frames, last).T
        self._went += resampled.shape[-1]
        return resampled
