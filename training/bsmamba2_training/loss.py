"""The authors' loss: the waveform, and its spectrum through five windows."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import l1_loss

WINDOWS = (4096, 2048, 1024, 512, 256)
HOP = 147
SMALLEST_FFT = 2048
WAVEFORM_WEIGHT = 10.0


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


def _modulus(spectrum: Tensor) -> Tensor:
    """|z|, whose gradient is finite at 0: silence that is reproduced exactly must not give NaN."""
    power = torch.view_as_real(spectrum).square().sum(-1)
    return torch.sqrt(power + 1e-14)
