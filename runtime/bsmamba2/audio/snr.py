"""Signal-to-noise ratio: how closely two computations of the same audio agree."""

from __future__ import annotations

import numpy as np

from bsmamba2.audio.array import Audio

IDENTICAL_DB = 999.0
"""Stored instead of the infinite SNR of identical results, which JSON cannot hold."""


def snr_db(reference: Audio, estimate: Audio) -> float:
    """Returns 10·log10(Σ r² / Σ (r − e)²): inf if both are identical.

    It is −inf if the shapes differ, either is not finite, or only the reference is silent.
    """
    finite = np.isfinite(reference).all() and np.isfinite(estimate).all()
    if reference.shape != estimate.shape or not finite:
        return -np.inf
    exact = reference.astype(np.float64)
    error = np.sum((exact - estimate) ** 2)
    power = np.sum(exact**2)
    if error == 0:
        return np.inf
    return float(10 * np.log10(power / error)) if power > 0 else -np.inf


def describe_snr(value_db: float) -> str:
    """Formats the SNR of two computations: ``95.3 dB``, or ``exact agreement``."""
    return "exact agreement" if value_db >= IDENTICAL_DB else f"{value_db:.1f} dB"
