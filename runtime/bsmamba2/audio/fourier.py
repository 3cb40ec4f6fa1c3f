"""The matrices of a Fourier transform that is made of products, as graphs of audio have it.

A frame of n_fft samples is given as B = ⌈n_fft / hop⌉ whole hops, so the matrices have rows (the
inverse's: columns) of zeros behind the n_fft-th.
"""

from __future__ import annotations

import numpy as np

from bsmamba2.audio.array import Audio
from bsmamba2.audio.stft import exact_hann

ANALYSIS, SYNTHESIS = "fourier.analysis", "fourier.synthesis"
"""What graphs call them. They are no weights: whoever pours weights into a graph makes them."""


def matrices(n_fft: int, hop: int) -> dict[str, Audio]:
    """By name, float32: analysis (B · hop, 2F), real and imaginary part of each of the F bins side
    by side, and synthesis (2F, B · hop); both with the periodic Hann window, F = n_fft/2 + 1.
    """
    bins, wide = n_fft // 2 + 1, -(-n_fft // hop) * hop
    phase = np.arange(n_fft) * (2 * np.pi / n_fft)
    circle, window = np.stack([np.cos(phase), -np.sin(phase)], -1), exact_hann(n_fft)
    twice = np.full((bins, 1), 2.0 / n_fft)  # for the mirrored half of a real signal's spectrum,
    twice[0] = twice[-1] = 1.0 / n_fft  # which these two do not have
    analysis = np.zeros((wide, bins, 2), np.float32)
    synthesis = np.zeros((bins, 2, wide), np.float32)
    for sample in range(n_fft):
        # The phase 2π·k·n / n_fft, reduced as an integer first, so that it is exact.
        row = circle[sample * np.arange(bins) % n_fft] * window[sample]
        analysis[sample], synthesis[..., sample] = row, row * twice
    return {
        ANALYSIS: analysis.reshape(wide, 2 * bins),
        SYNTHESIS: synthesis.reshape(2 * bins, wide),
    }


def power(n_fft: int, hop: int) -> Audio:
    """(B, hop): the squared window, which the overlapped frames are divided by the sum of."""
    blocks = -(-n_fft // hop)
    squared = np.pad(np.square(exact_hann(n_fft)), (0, blocks * hop - n_fft))
    return squared.reshape(blocks, hop).astype(np.float32)
