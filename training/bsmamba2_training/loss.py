"""The authors' loss, the waveform and its spectrum through five windows; and one of silence."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import l1_loss

WINDOWS = (4096, 2048, 1024, 512, 256)
HOP = 147
SMALLEST_FFT = 2048
WAVEFORM_WEIGHT = 10.0
SILENCE_WINDOW = 22050
SILENCE_FLOOR = 1e-4
"""Of the mixture's power: what lies 40 dB below it is silence."""


def separation_loss(estimate: Tensor, target: Tensor, hop: int = HOP) -> tuple[Tensor, Tensor]:
    """10·L1 of the waveforms, and the sum over windows of the complex spectra's L1.

    Their sum is what is minimised. Each mean is over everything, complex parts included: the L1 of
    a complex difference is the mean of its modulus.

    Args:
        estimate, target: (…, samples), float32, at least 2049 samples.
        hop: of the transforms, samples.

    Source: Kim and Choi 2025, section 3; windows of 4096 to 256 samples, hop 147, transforms of
    at least 2048.
    """
    waveform = WAVEFORM_WEIGHT * l1_loss(estimate, target)
    # A transform is linear: that of the difference is the difference of the transforms.
    difference = (estimate - target).reshape(-1, estimate.shape[-1])
    spectral = difference.new_zeros(())
    for size in WINDOWS:
        window = torch.hann_window(size, device=difference.device)
        spectrum = torch.stft(
            difference, max(size, SMALLEST_FFT), hop, size, window, return_complex=True
        )
        spectral = spectral + _modulus(spectrum).mean()
    return waveform, spectral


def silence_loss(estimate: Tensor, target: Tensor, mixture: Tensor) -> Tensor:
    """What sounds where the target is silent, on a logarithmic scale.

    L1 hardly asks for more than it has got once a stray instrument is 20 dB below the mixture. Here
    each halving of what is left counts alike, down to 40 dB: over windows of half a second in which
    the target is exactly zero and the mixture is not, log10(P_estimate / P_mixture + 1e-4) + 4,
    which is 0 for silence and 4 for the mixture itself; averaged over all windows, so that it
    weighs as much as there is silence.

    Args:
        estimate, target, mixture: (…, channels, samples), at least 22050 samples.

    Source: the loss of inactive sources of Wisdom et al. 2021, "What's all the FUSS about free
    universal sound separation data?", here by windows.
    """
    heard, wanted, mixed = (_window_power(audio) for audio in (estimate, target, mixture))
    is_silent = (wanted == 0) & (mixed > 0)
    share = heard / mixed.clamp_min(1e-12) + SILENCE_FLOOR
    return torch.where(is_silent, torch.log10(share / SILENCE_FLOOR), 0).mean()


def _window_power(audio: Tensor) -> Tensor:
    """(…, windows): the channels' power together."""
    windows = audio.unfold(-1, SILENCE_WINDOW, SILENCE_WINDOW)
    return windows.square().mean(-1).sum(-2)


def _modulus(spectrum: Tensor) -> Tensor:
    """|z|, whose gradient is finite at 0: silence that is reproduced exactly must not give NaN."""
    power = torch.view_as_real(spectrum).square().sum(-1)
    return torch.sqrt(power + 1e-14)
