"""The Fourier transform as matrix products, for graphs whose input and output are audio.

A frame of n_fft samples is stored as B = ⌈n_fft / hop⌉ whole hops, so the analysis matrix is padded
with zero rows after the n_fft-th, and the synthesis matrix with zero columns.
"""

from __future__ import annotations

import numpy as np

from bsmamba2.audio.array import Audio
from bsmamba2.audio.stft import exact_hann

ANALYSIS, SYNTHESIS = "fourier.analysis", "fourier.synthesis"
"""Names of the matrices in graphs. Code that loads a checkpoint into a graph adds them."""


def matrices(n_fft: int, hop: int) -> dict[str, Audio]:
    """Returns both matrices by name, in float32, with the periodic Hann window applied.

    With F = n_fft/2 + 1 bins: analysis is (B · hop, 2F), the real and imaginary part of each bin
    next to each other, and synthesis is (2F, B · hop).
    """
    bins, padded = n_fft // 2 + 1, -(-n_fft // hop) * hop
    phase = np.arange(n_fft) * (2 * np.pi / n_fft)
    unit_circle, window = np.stack([np.cos(phase), -np.sin(phase)], -1), exact_hann(n_fft)
    # Bins count twice, for the mirrored half of a real signal's spectrum, except for 0 and Nyquist.
    scale = np.full((bins, 1), 2.0 / n_fft)
    scale[0] = scale[-1] = 1.0 / n_fft
    analysis = np.zeros((padded, bins, 2), np.float32)
    synthesis = np.zeros((bins, 2, padded), np.float32)
    for sample in range(n_fft):
        # The phase 2π·k·n / n_fft is exact, because k·n is reduced modulo n_fft as an integer.
        row = unit_circle[sample * np.arange(bins) % n_fft] * window[sample]
        analysis[sample], synthesis[..., sample] = row, row * scale
    return {
        ANALYSIS: analysis.reshape(padded, 2 * bins),
        SYNTHESIS: synthesis.reshape(2 * bins, padded),
    }


def power(n_fft: int, hop: int) -> Audio:
    """Returns the squared window, (B, hop). The inverse divides overlapped frames by its sum."""
    blocks = -(-n_fft // hop)
    squared = np.pad(np.square(exact_hann(n_fft)), (0, blocks * hop - n_fft))
    return squared.reshape(blocks, hop).astype(np.float32)
