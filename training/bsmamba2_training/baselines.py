"""What a separation is compared with: doing nothing, an oracle, and an old method."""

from __future__ import annotations

import numpy as np

from bsmamba2.audio.array import Audio
from bsmamba2.audio.stft import istft, stft
from bsmamba2_training.voices import Array

N_FFT, HOP = 2048, 512
SEGMENT = 30 * 44100
"""The old method looks for repetitions within so many samples."""
NEIGHBOURS = 15
APART = 43
"""Least distance of frames that count as a repetition: half a second."""
HIGH_PASS_HZ = 100.0


def mixture_as_both(mixture: Audio, vocals: Audio) -> Audio:
    """The mixture itself: what improvement is measured from."""
    return mixture


def silence(mixture: Audio, vocals: Audio) -> Audio:
    """No vocals at all: under a quiet voice this already improves on the mixture."""
    return np.zeros_like(mixture)


def oracle_mask(mixture: Audio, vocals: Audio) -> Audio:
    """The ratio of the true magnitudes as a mask, with the mixture's phase.

    No bound: a real mask that knows the phases too, Re(S·X*) / |X|², errs least in every bin.
    """
    voice = np.abs(_spectrum(vocals))
    rest = np.abs(_spectrum(mixture - vocals))
    return _inverse(_spectrum(mixture) * voice / (voice + rest + 1e-9), mixture.shape[1])


def repetition(mixture: Audio, vocals: Audio) -> Audio:
    """What does not repeat is the voice (REPET-SIM: Rafii and Pardo 2012).

    A frame's accompaniment is the median of its most similar frames of other moments; what is
    above it is the voice.
    """
    parts = [
        _not_repeated(mixture[:, at : at + SEGMENT]) for at in range(0, mixture.shape[1], SEGMENT)
    ]
    return np.concatenate(parts, axis=1)


BASELINES = {
    "mixture": mixture_as_both,
    "silence": silence,
    "oracle mask": oracle_mask,
    "repetition (REPET-SIM)": repetition,
}
"""``baseline(mixture, vocals) → estimate of the vocals``; only the oracle looks at the vocals."""


def _not_repeated(mixture: Audio) -> Audio:
    spectrum = _spectrum(mixture)
    magnitude = np.abs(spectrum).mean(axis=0)  # (frames, bins)
    unit = magnitude / (np.linalg.norm(magnitude, axis=1, keepdims=True) + 1e-9)
    alike = unit @ unit.T
    frames = np.arange(len(alike))
    alike[np.abs(frames[:, None] - frames) < APART] = -1
    nearest = np.argsort(-alike, axis=1)[:, :NEIGHBOURS]
    background = np.stack([np.median(magnitude[row], axis=0) for row in nearest])
    mask = 1 - np.minimum(background, magnitude) / (magnitude + 1e-9)
    mask[:, np.fft.rfftfreq(N_FFT, 1 / 44100) < HIGH_PASS_HZ] = 0
    return _inverse(spectrum * mask, mixture.shape[1])


def _spectrum(audio: Audio) -> Array:
    """(channels, samples) to complex (channels, frames, bins)."""
    parts = stft(audio.astype(np.float32), N_FFT, HOP)
    spectrum: Array = parts[..., 0] + 1j * parts[..., 1]
    return spectrum


def _inverse(spectrum: Array, samples: int) -> Audio:
    parts = np.stack([spectrum.real, spectrum.imag], axis=-1).astype(np.float32)
    return istft(parts, N_FFT, HOP, samples)
