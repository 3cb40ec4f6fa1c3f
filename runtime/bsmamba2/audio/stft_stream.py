"""The transform of :mod:`bsmamba2.audio.stft` as a stream, with bit-identical frames.

A frame is output as soon as its samples have arrived. The start is reflected after n_fft/2 + 1
samples and the end at the flush; nothing else is padded. The inverse outputs a sample as soon as no
later frame overlaps it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from bsmamba2.audio.fifo import Fifo
from bsmamba2.audio.stft import hann

if TYPE_CHECKING:
    from bsmamba2.audio.array import Audio


class StftStream:
    """Samples in, frames out.

    Args:
        rows: number of signals, transformed in parallel.
        n_fft, hop: frame length and frame distance, samples; hop is at most n_fft / 4.
    """

    def __init__(self, rows: int, n_fft: int, hop: int) -> None:
        self._rows, self._n_fft, self._hop = rows, n_fft, hop
        self._half = n_fft // 2
        self._held: Fifo[np.float32] = Fifo(rows, np.float32)
        self._reflected = False

    def push(self, audio: Audio) -> Audio:
        """Takes (rows, n); returns (rows, frames, n_fft/2 + 1, 2)."""
        self._held.append(audio)
        if not self._reflected:
            if len(self._held) <= self._half:
                return self._frames(0)
            start = self._held.take(len(self._held))
            self._held.append(start[:, self._half : 0 : -1])
            self._held.append(start)
            self._reflected = True
        return self._frames(max(0, (len(self._held) - self._n_fft) // self._hop + 1))

    def flush(self) -> Audio:
        """Ends the stream; returns the remaining frames, none if there were no samples."""
        if len(self._held) == 0:
            return self._frames(0)
        missing = 0 if self._reflected else self._half + 1 - len(self._held)
        frames = self.push(np.zeros((self._rows, missing), np.float32))
        end = len(self._held)
        self._held.append(self._held.peek(end - 1 - self._half, end - 1)[:, ::-1].copy())
        return np.concatenate([frames, self.push(np.zeros((self._rows, 0), np.float32))], axis=1)

    def _frames(self, count: int) -> Audio:
        if count == 0:
            return np.zeros((self._rows, 0, self._half + 1, 2), np.float32)
        samples = self._held.peek(0, (count - 1) * self._hop + self._n_fft)
        frames = sliding_window_view(samples, self._n_fft, axis=-1)[:, :: self._hop]
        spectrum = np.fft.rfft(frames * hann(self._n_fft)).astype(np.complex64, copy=False)
        # At least n_fft - hop samples remain: enough to reflect the end.
        self._held.drop(count * self._hop)
        return spectrum.view(np.float32).reshape(*spectrum.shape, 2)


class IstftStream:
    """Frames in, samples out; the arguments are those of :class:`StftStream`."""

    def __init__(self, rows: int, n_fft: int, hop: int) -> None:
        self._n_fft, self._hop = n_fft, hop
        # The sums from the start of the next frame on, and how many of them are before the signal.
        self._audio = np.zeros((rows, n_fft), np.float32)
        self._weight = np.zeros(n_fft, np.float32)
        self._before = n_fft // 2

    def push(self, spectrum: Audio) -> Audio:
        """Takes (rows, frames, n_fft/2 + 1, 2); returns (rows, n)."""
        window = hann(self._n_fft)
        packed = np.ascontiguousarray(spectrum).view(np.complex64)[..., 0]
        with np.errstate(over="ignore", invalid="ignore"):  # of a model's output, which is checked
            frames = np.fft.irfft(packed, self._n_fft).astype(np.float32, copy=False) * window
        done = frames.shape[1] * self._hop
        audio = np.pad(self._audio, [(0, 0), (0, done)])
        weight = np.pad(self._weight, (0, done))
        for i, at in enumerate(range(0, done, self._hop)):
            audio[:, at : at + self._n_fft] += frames[:, i]
            weight[at : at + self._n_fft] += window * window
        self._audio, self._weight = audio[:, done:], weight[done:]
        before = min(self._before, done)
        self._before -= before
        return np.divide(audio[:, before:done], weight[before:done], dtype=np.float32)

    def flush(self, samples: int) -> Audio:
        """Ends the stream; returns (rows, samples), the remaining samples."""
        kept = slice(self._before, self._before + samples)
        return np.divide(self._audio[:, kept], self._weight[kept], dtype=np.float32)
