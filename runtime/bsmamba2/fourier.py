"""The matrices of a Fourier transform that is made of products, as graphs of audio have it.

A frame of n_fft samples is given as B = ⌈n_fft / hop⌉ whole hops, so the matrices have rows (the
inverse's: columns) of zeros behind the n_fft-th.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bsmamba2.array import Audio

ANALYSIS, SYNTHESIS = "fourier.analysis", "fourier.synthesis"
"""What graphs call them. They are no weights: whoever pours weights into a graph makes them."""


def matrices(n_fft: int, hop: int) -> dict[str, Audio]:
    """By name, float32: analysis (B · hop, 2F), real and imaginary part of each of the F bins side
    by side, and synthesis (2F, B · hop); both with the periodic Hann window, F = n_fft/2 + 1.
    """
    bins, wide = n_fft // 2 + 1, -(-n_fft // hop) * hop
    # The phase 2π·k·n / n_fft, reduced as an integer first, so that it is exact.
    phase = (np.arange(n_fft)[:, None] * np.arange(bins)) % n_fft * (2 * np.pi / n_fft)
    analysis = np.zeros((wide, bins, 2))
    analysis[:n_fft] = np.stack([np.cos(phase), -np.sin(phase)], -1) * _hann(n_fft)[:, None, None]
    twice = np.full((1, bins, 1), 2.0)  # for the mirrored half of a real signal's spectrum,
    twice[:, 0] = twice[:, -1] = 1.0  # which these two do not have
    synthesis = (analysis * twice / n_fft).reshape(wide, 2 * bins).T
    return {
        ANALYSIS: analysis.reshape(wide, 2 * bins).astype(np.float32),
        SYNTHESIS: np.ascontiguousarray(synthesis, np.float32),
    }


def power(n_fft: int, hop: int) -> Audio:
    """(B, hop): the squared window, which the overlapped frames are divided by the sum of."""
    blocks = -(-n_fft // hop)
    squared = np.pad(np.square(_hann(n_fft)), (0, blocks * hop - n_fft))
    return squared.reshape(blocks, hop).astype(np.float32)


def _hann(n_fft: int) -> npt.NDArray[np.float64]:
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
