"""Signal-to-noise ratio: how closely two computations of the same audio agree."""

from __future__ import annotations

import numpy as np

from bsmamba2.audio.array import Audio


def snr_db(reference: Audio, estimate: Audio) -> float:
    """Returns 10·log10(Σ r² / Σ (r − e)²); −inf if shapes differ or the estimate is not finite."""
    if reference.shape != estimate.shape or not np.isfinite(estimate).all():
        return -np.inf
    exact = reference.astype(np.float64)
    error = np.sum((exact - estimate) ** 2)
    power = np.sum(exact**2)
    return float(10 * np.log10(power / error)) if error > 0 else np.inf
