"""The short-time Fourier transform in NumPy; the network implements the same rules in PyTorch.

A signal shorter than n_fft/2 + 1 samples is padded with zeros to that length, which reflection
needs. Frames are centred at 0, hop, … up to the last multiple of hop in the signal; both ends are
reflected. The inverse divides by the sum of the squared windows of the existing frames. That sum is
not constant where hop does not divide the window (2048 / 441).

    reflected │ signal ─────────────────────── │ reflected
    ├──frame 0──┤
          ├──frame 1──┤            …   ├──frame L // hop──┤
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from bsmamba2.audio.array import Audio


def stft(audio: Audio, n_fft: int, hop: int, window: Audio | None = None) -> Audio:
    """Transforms (…, samples) to (…, frames, n_fft/2 + 1, 2), real and imaginary parts last.

    Args:
        audio: any number of signals of equal length.
        n_fft, hop: length and distance of the frames, samples.
        window: (n_fft,). Default: the periodic Hann window.
    """
    half = n_fft // 2
    lead = [(0, 0)] * (audio.ndim - 1)
    audio = np.pad(audio, [*lead, (0, max(0, half + 1 - audio.shape[-1]))])
    audio = np.pad(audio, [*lead, (half, half)], mode="reflect")
    frames = sliding_window_view(audio, n_fft, axis=-1)[..., ::hop, :]
    frames = frames * (hann(n_fft) if window is None else window)
    spectrum = np.fft.rfft(frames).astype(np.complex64, copy=False)
    return spectrum.view(np.float32).reshape(*spectrum.shape, 2)


def istft(
    spectrum: Audio, n_fft: int, hop: int, samples: int, window: Audio | None = None
) -> Audio:
    """Transforms (…, frames, n_fft/2 + 1, 2) back to (…, samples)."""
    window = hann(n_fft) if window is None else window
    packed = np.ascontiguousarray(spectrum).view(np.complex64)[..., 0]
    with np.errstate(over="ignore", invalid="ignore"):  # of a model's output, which is checked
        frames = np.fft.irfft(packed, n_fft).astype(np.float32, copy=False) * window
    count = frames.shape[-2]
    audio = np.zeros((*frames.shape[:-2], (count - 1) * hop + n_fft), np.float32)
    weight = np.zeros(audio.shape[-1], np.float32)
    for i in range(count):
        audio[..., i * hop : i * hop + n_fft] += frames[..., i, :]
        weight[i * hop : i * hop + n_fft] += window * window
    kept = slice(n_fft // 2, n_fft // 2 + samples)
    return np.divide(audio[..., kept], weight[kept], dtype=np.float32)


@cache
def hann(n_fft: int) -> Audio:
    """Returns the periodic Hann window."""
    return exact_hann(n_fft).astype(np.float32)


def exact_hann(n_fft: int) -> npt.NDArray[np.float64]:
    """Returns the periodic Hann window in float64."""
    window: npt.NDArray[np.float64] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    return window
