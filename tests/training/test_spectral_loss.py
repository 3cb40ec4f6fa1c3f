"""The spectral loss and its gradient, against PyTorch's own transform and derivative."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bsmamba2_training.spectral_loss import EPSILON, spectral_l1

WINDOWS = (24, 16, 4)


def plain(signals: Tensor, smallest_fft: int, hop: int) -> Tensor:
    """Returns the same loss by ``torch.stft``, with the derivative by autograd."""
    total = signals.new_zeros(())
    for size in WINDOWS:
        window = torch.hann_window(size, dtype=signals.dtype)
        n_fft = max(size, smallest_fft)
        spectra = torch.stft(signals, n_fft, hop, size, window, return_complex=True)
        total = total + (torch.view_as_real(spectra).square().sum(-1) + EPSILON).sqrt().mean()
    return total


@pytest.mark.parametrize("hop", [1, 3, 7, 8, 16, 30, 60])
@pytest.mark.parametrize("signals", [1, 2, 5])
@pytest.mark.parametrize("smallest_fft", [4, 16, 40])
def test_loss_and_gradient_equal_those_of_the_plain_transform(
    hop: int, signals: int, smallest_fft: int
) -> None:
    torch.manual_seed(hop)
    noise = torch.randn(signals, 53, dtype=torch.float64, requires_grad=True)
    loss, expected = spectral_l1(noise, WINDOWS, smallest_fft, hop), plain(noise, smallest_fft, hop)
    torch.testing.assert_close(loss, expected)
    (gradient,), (reference,) = (torch.autograd.grad(3 * v, noise) for v in (loss, expected))
    torch.testing.assert_close(gradient, reference)


def test_numerical_differences_confirm_the_gradient() -> None:
    noise = torch.randn(2, 30, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: spectral_l1(v, WINDOWS, 16, 5), noise)


def test_the_length_of_a_signal_may_end_within_a_frame() -> None:
    for samples in range(21, 45):
        noise = torch.randn(2, samples, dtype=torch.float64)
        torch.testing.assert_close(spectral_l1(noise, WINDOWS, 16, 8), plain(noise, 16, 8))


def test_silence_has_a_finite_gradient() -> None:
    silence = torch.zeros(2, 60, requires_grad=True)
    spectral_l1(silence, WINDOWS, 16, 8).backward()
    assert silence.grad is not None
    assert torch.isfinite(silence.grad).all()
