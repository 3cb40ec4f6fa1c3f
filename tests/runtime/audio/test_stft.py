"""The transform: exact inverse, known frames, the same rule as the network's."""

from __future__ import annotations

import numpy as np
import pytest

from bsmamba2.audio.stft import istft, stft


@pytest.mark.parametrize("samples", [1, 2, 8, 9, 10, 15, 16, 100])
@pytest.mark.parametrize(("n_fft", "hop"), [(16, 4), (16, 3), (16, 1)])
def test_there_and_back_is_the_signal(samples, n_fft, hop):
    audio = np.random.default_rng(samples).normal(size=(2, samples)).astype(np.float32)
    back = istft(stft(audio, n_fft, hop), n_fft, hop, samples)
    np.testing.assert_allclose(back, audio, rtol=0, atol=2e-6)


def test_a_frame_stands_at_every_multiple_of_hop_in_the_signal():
    assert [stft(np.zeros((1, n), np.float32), 16, 5).shape[1] for n in (0, 9, 10, 14, 15)] == [
        2, 2, 3, 3, 4
    ]  # fmt: skip


def test_a_sine_on_a_bin_is_a_quarter_of_the_window_beside_it():
    sine = np.cos(2 * np.pi * 3 * np.arange(160) / 16).astype(np.float32)[None]
    frame = stft(sine, 16, 8)[0, 5] @ [1, 1j]
    np.testing.assert_allclose(np.abs(frame), [0, 0, 2, 4, 2, 0, 0, 0, 0], atol=1e-5)


def test_an_impulse_at_the_start_is_seen_by_the_frames_that_reach_it():
    impulse = np.eye(1, 100, dtype=np.float32)
    power = np.square(stft(impulse, 16, 4)).sum((0, 2, 3))
    assert (power > 0).tolist() == [True, True] + [False] * (len(power) - 2)


@pytest.mark.parametrize(("n_fft", "hop"), [(64, 16), (64, 13), (64, 1)])
def test_a_masked_spectrum_is_no_louder_than_its_mask_at_any_length(n_fft, hop):
    """Where a window's foot alone reaches a sample, the inverse would divide by almost nothing."""
    for samples in range(1, 200):
        random = np.random.default_rng(samples)
        audio = random.uniform(-1, 1, (1, samples)).astype(np.float32)
        spectrum = stft(audio, n_fft, hop)
        mask = random.uniform(-1, 1, spectrum.shape).astype(np.float32)
        assert np.abs(istft(spectrum * mask, n_fft, hop, samples)).max() < 8
