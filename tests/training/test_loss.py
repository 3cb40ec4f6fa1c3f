"""The loss: the authors' formula, and nothing that breaks on silence."""

from __future__ import annotations

import pytest
import torch

from bsmamba2_training.loss import (
    HOP,
    SILENCE_WINDOW,
    SMALLEST_FFT,
    WINDOWS,
    separation_loss,
    silence_loss,
)


def test_the_loss_is_l1_of_the_waveform_and_of_each_complex_spectrum():
    torch.manual_seed(0)
    estimate, target = torch.randn(2, 2, 2, 6000)
    spectral = 0.0
    for size in WINDOWS:
        n_fft, window = max(size, SMALLEST_FFT), torch.hann_window(size)
        ours, theirs = (
            torch.stft(v.reshape(-1, 6000), n_fft, HOP, size, window, return_complex=True)
            for v in (estimate, target)
        )
        spectral += (ours - theirs).abs().mean()
    waveform, found = separation_loss(estimate, target)
    torch.testing.assert_close(waveform, 10 * (estimate - target).abs().mean())
    torch.testing.assert_close(found, spectral, rtol=1e-4, atol=1e-4)


def test_silence_that_is_met_exactly_costs_nothing_and_has_a_finite_gradient():
    estimate = torch.zeros(1, 2, 5000, requires_grad=True)
    waveform, spectral = separation_loss(estimate, torch.zeros(1, 2, 5000))
    (waveform + spectral).backward()
    assert float((waveform + spectral).detach()) < 1e-5
    assert torch.isfinite(estimate.grad).all()


@pytest.mark.parametrize(("left_db", "cost"), [(0, 4), (-20, 2), (-30, 1.04), (-300, 0)])
def test_what_is_left_in_silence_costs_its_distance_from_40_db_below_the_mixture(left_db, cost):
    mixture = torch.randn(1, 2, SILENCE_WINDOW, generator=torch.Generator().manual_seed(0))
    found = silence_loss(10 ** (left_db / 20) * mixture, torch.zeros_like(mixture), mixture)
    assert float(found) == pytest.approx(cost, abs=0.01)


def test_a_voice_and_a_silent_mixture_cost_no_silence():
    voice = torch.cat([torch.ones(1, 2, SILENCE_WINDOW), torch.zeros(1, 2, SILENCE_WINDOW)], -1)
    estimate = (0.5 * voice).requires_grad_()
    cost = silence_loss(estimate, voice, voice)
    cost.backward()
    assert float(cost.detach()) == 0
    assert not estimate.grad.any()
