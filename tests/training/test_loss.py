"""The losses: the authors' formula, finite gradients on silence, and the silence loss."""

from __future__ import annotations

import pytest
import torch

from bsmamba2_training.loss import (
    HOP,
    SILENCE_WINDOW,
    SMALLEST_FFT,
    WINDOWS,
    sdr_loss,
    separation_loss,
    silence_loss,
)


def test_the_loss_is_l1_of_the_waveform_and_of_each_complex_spectrum() -> None:
    torch.manual_seed(0)
    estimate, target = torch.randn(2, 2, 2, 6000)
    expected = torch.zeros(())
    for size in WINDOWS:
        n_fft, window = max(size, SMALLEST_FFT), torch.hann_window(size)
        of_estimate, of_target = (
            torch.stft(v.reshape(-1, 6000), n_fft, HOP, size, window, return_complex=True)
            for v in (estimate, target)
        )
        expected += (of_estimate - of_target).abs().mean()
    waveform, spectral = separation_loss(estimate, target)
    torch.testing.assert_close(waveform, 10 * (estimate - target).abs().mean())
    torch.testing.assert_close(spectral, expected, rtol=1e-4, atol=1e-4)


def test_exactly_reproduced_silence_has_no_loss_and_a_finite_gradient() -> None:
    estimate = torch.zeros(1, 2, 5000, requires_grad=True)
    waveform, spectral = separation_loss(estimate, torch.zeros(1, 2, 5000))
    (waveform + spectral).backward()
    assert float((waveform + spectral).detach()) < 1e-5
    assert estimate.grad is not None
    assert torch.isfinite(estimate.grad).all()


@pytest.mark.parametrize(("leakage_db", "expected"), [(0, 4), (-20, 2), (-30, 1.04), (-300, 0)])
def test_the_silence_loss_is_the_distance_of_leakage_from_40_db_below_the_mixture(
    leakage_db: float, expected: float
) -> None:
    mixture = torch.randn(1, 2, SILENCE_WINDOW, generator=torch.Generator().manual_seed(0))
    loss = silence_loss(10 ** (leakage_db / 20) * mixture, torch.zeros_like(mixture), mixture)
    assert float(loss) == pytest.approx(expected, abs=0.01)


def test_the_silence_loss_is_zero_where_a_voice_sounds_or_the_mixture_is_silent() -> None:
    voice = torch.cat([torch.ones(1, 2, SILENCE_WINDOW), torch.zeros(1, 2, SILENCE_WINDOW)], -1)
    estimate = (0.5 * voice).requires_grad_()
    loss = silence_loss(estimate, voice, voice)
    loss.backward()
    assert float(loss.detach()) == 0
    assert estimate.grad is not None
    assert not estimate.grad.any()


@pytest.mark.parametrize(("gain", "expected"), [(0, 3), (2, 3), (0.9, 1.04), (1, 0)])
@pytest.mark.parametrize("level", [1.0, 0.001])
def test_the_sdr_loss_is_the_distance_from_30_db_at_any_level(
    gain: float, expected: float, level: float
) -> None:
    voice = level * torch.randn(3, 2, 5000, generator=torch.Generator().manual_seed(0))
    assert float(sdr_loss(gain * voice, voice)) == pytest.approx(expected, abs=0.01)


def test_the_sdr_loss_moves_a_mute_estimate_of_a_quiet_voice_towards_it() -> None:
    voice = 1e-3 * torch.randn(1, 2, 5000, generator=torch.Generator().manual_seed(0))
    gain = torch.zeros((), requires_grad=True)
    sdr_loss(gain * voice, voice).backward()
    assert gain.grad is not None
    assert float(gain.grad) == pytest.approx(-0.87, abs=0.01)


def test_an_item_without_a_voice_has_no_sdr_loss_and_a_finite_gradient() -> None:
    estimate = torch.ones(1, 2, 5000, requires_grad=True)
    loss = sdr_loss(estimate, torch.zeros(1, 2, 5000))
    loss.backward()
    assert float(loss.detach()) == 0
    assert estimate.grad is not None
    assert not estimate.grad.any()
