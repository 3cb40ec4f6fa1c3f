"""Reference separations: no processing, silence, an oracle mask, and a classical method."""

from __future__ import annotations

import numpy as np

from bsmamba2.audio.array import Audio
from bsmamba2.audio.stft import istft, stft
from bsmamba2_training.voices import Array

N_FFT, HOP = 2048, 512
SEARCH_SAMPLES = 30 * 44100
"""REPET-SIM searches for repetitions within excerpts of this length."""
NEIGHBOURS = 15
MIN_DISTANCE_FRAMES = 43
"""Frames closer than this (half a second) do not count as repetitions of each other."""
HIGH_PASS_HZ = 100.0


def mixture_as_both(mixture: Audio, vocals: Audio) -> Audio:
    """Returns the mixture itself: the reference for all improvements."""
    return mixture


def silence(mixture: Audio, vocals: Audio) -> Audio:
    """Returns silence as the vocals; for a quiet voice, this already improves on the mixture."""
    return np.zeros_like(mixture)


def oracle_mask(mixture: Audio, vocals: Audio) -> Audio:
    """Applies the ratio of the true magnitudes as a mask and keeps the mixture's phase.

    This is not an upper bound. The best real-valued mask also uses the true phases:
    Re(S·X*) / |X|² has the smallest error in every bin.
    """
    voice = np.abs(_spectrum(vocals))
    rest = np.abs(_spectrum(mixture - vocals))
    return _inverse(_spectrum(mixture) * voice / (voice + rest + 1e-9), mixture.shape[1])


def repetition(mixture: Audio, vocals: Audio) -> Audio:
    """Treats everything that does not repeat as the voice (REPET-SIM: Rafii and Pardo 2012).

    The accompaniment of a frame is the median of the most similar frames at other times; the
    magnitude above it is the voice.
    """
    parts = [
        _remove_repetition(mixture[:, at : at + SEARCH_SAMPLES])
        for at in range(0, mixture.shape[1], SEARCH_SAMPLES)
    ]
    return np.concatenate(parts, axis=1)


BASELINES = {
    "mixture": mixture_as_both,
    "silence": silence,
    "oracle mask": oracle_mask,
    "repetition (REPET-SIM)": repetition,
}
"""``baseline(mixture, vocals) → estimate of the vocals``; only the oracle uses the true vocals."""


def _remove_repetition(mixture: Audio) -> Audio:
    spectrum = _spectrum(mixture)
    magnitude = np.abs(spectrum).mean(axis=0)  # (frames, bins)
    unit = magnitude / (np.linalg.norm(magnitude, axis=1, keepdims=True) + 1e-9)
    similarity = unit @ unit.T
    frames = np.arange(len(similarity))
    similarity[np.abs(frames[:, None] - frames) < MIN_DISTANCE_FRAMES] = -1
    nearest = np.argsort(-similarity, axis=1)[:, :NEIGHBOURS]
    background = np.stack([np.median(magnitude[row], axis=0) for row in nearest])
    mask = 1 - np.minimum(background, magnitude) / (magnitude + 1e-9)
    mask[:, np.fft.rfftfreq(N_FFT, 1 / 44100) < HIGH_PASS_HZ] = 0
    return _inverse(spectrum * mask, mixture.shape[1])


def _spectrum(audio: Audio) -> Array:
    """Transforms (channels, samples) to complex (channels, frames, bins)."""
    parts = stft(audio.astype(np.float32), N_FFT, HOP)
    spectrum: Array = parts[..., 0] + 1j * parts[..., 1]
    return spectrum


def _inverse(spectrum: Array, samples: int) -> Audio:
    parts = np.stack([spectrum.real, spectrum.imag], axis=-1).astype(np.float32)
    return istft(parts, N_FFT, HOP, samples)
