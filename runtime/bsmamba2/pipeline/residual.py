"""The residual: the mixture minus the stems, exact to the bit in integer formats."""

from __future__ import annotations

import numpy as np

from bsmamba2.audio.array import Exact


def on_grid(samples: Exact, step: float) -> Exact:
    """Rounds samples to multiples of step, a power of two; returns them unchanged if step is 0."""
    return np.round(samples / step) * step if step else samples


def compute_residual(mixture: Exact, stems: Exact, step: float) -> Exact:
    """Returns the residual (channels, n) of a mixture (channels, n) and stems (stems, channels, n).

    If the stems are on a grid of step, the mixture is rounded to it too. Float64 represents the
    difference of two 32-bit integers exactly, so the outputs sum to the mixture bit for bit.
    """
    residual: Exact = on_grid(mixture, step) - stems.sum(axis=0)
    return residual
