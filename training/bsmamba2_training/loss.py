"""The authors' loss on the waveform and on five spectra, and two extra losses.

One is for output where no voice sounds, the other for the SDR of each item. The first alone teaches
a network to be mute, because a quiet voice costs L1 almost nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import l1_loss

from bsmamba2_training.spectral_loss import spectral_l1

WINDOWS = (4096, 2048, 1024, 512, 256)
HOP = 147
SMALLEST_FFT = 2048
WAVEFORM_WEIGHT = 10.0
SDR_CEILING = 1e-3
"""Error relative to the voice (30 dB of SDR) below which the SDR loss levels off."""
SILENCE_WINDOW = 22050
SILENCE_FLOOR = 1e-4
"""Fraction of the mixture's power (−40 dB) below which the silence loss levels off."""


def separation_loss(estimate: Tensor, target: Tensor, hop: int = HOP) -> tuple[Tensor, Tensor]:
    """Returns 10·L1 of the waveforms, and the sum over windows of the L1 of the complex spectra.

    Training minimises their sum. Each L1 is a mean over all dimensions; the L1 of a complex
    difference is the mean of its modulus.

    Args:
        estimate, target: (…, samples), float32, at least 2049 samples.
        hop: hop of the transforms, in samples.

    Source: Kim and Choi 2025, section 3; windows of 4096 to 256 samples, hop 147, transforms of
    at least 2048.
    """
    waveform = WAVEFORM_WEIGHT * l1_loss(estimate, target)
    # The transform is linear, so one transform of the difference replaces two.
    difference = (estimate - target).reshape(-1, estimate.shape[-1])
    spectral = spectral_l1(difference, WINDOWS, SMALLEST_FFT, hop)
    return waveform, spectral


def sdr_loss(estimate: Tensor, target: Tensor) -> Tensor:
    """Returns the mean error of the items relative to their voice, on a logarithmic scale.

    For an item with a voice it is log10(Σ(s − ŝ)² / Σs² + 0.001) + 3: 0 for a perfect estimate, 3
    for silence, and more if the error exceeds the voice. It does not depend on the level of the
    voice, so a quiet voice that is missed costs as much as a loud one. Items without a voice do not
    count.

    Args:
        estimate, target: (b, channels, samples).
    """
    voice = target.square().sum((-2, -1))
    error = (estimate - target).square().sum((-2, -1))
    has_voice = voice > 0
    ratio = error / torch.where(has_voice, voice, 1) + SDR_CEILING
    return torch.where(has_voice, torch.log10(ratio / SDR_CEILING), 0).mean()


def silence_loss(estimate: Tensor, target: Tensor, mixture: Tensor) -> Tensor:
    """Returns the level of the estimate where the target is silent, on a logarithmic scale.

    L1 gives almost no gradient once a leaking instrument is 20 dB below the mixture. On this scale
    every halving of the leakage counts the same, down to −40 dB. For each window of half a second
    in which the target is exactly zero and the mixture is not, the loss is
    log10(P_estimate / P_mixture + 1e-4) + 4: 0 for silence and 4 for the mixture itself. The mean
    is over all windows, so the loss is proportional to the amount of silence.

    Args:
        estimate, target, mixture: (…, channels, samples), at least 22050 samples.

    Source: the loss for inactive sources of Wisdom et al. 2021, "What's all the FUSS about free
    universal sound separation data?", here computed per window.
    """
    powers = [_window_power(audio) for audio in (estimate, target, mixture)]
    estimate_power, target_power, mixture_power = powers
    is_silent = (target_power == 0) & (mixture_power > 0)
    share = estimate_power / mixture_power.clamp_min(1e-12) + SILENCE_FLOOR
    return torch.where(is_silent, torch.log10(share / SILENCE_FLOOR), 0).mean()


def _window_power(audio: Tensor) -> Tensor:
    """Returns the power of all channels together, (…, windows)."""
    windows = audio.unfold(-1, SILENCE_WINDOW, SILENCE_WINDOW)
    return windows.square().mean(-1).sum(-2)
