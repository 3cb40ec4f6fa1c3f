"""The transform: exact inverse, known frames, the same rules as the network's."""

from __future__ import annotations

import numpy as np
import pytest

from bsmamba2.audio.stft import istft, stft


@pytest.mark.parametrize("samples", [1, 2, 8, 9, 10, 15, 16, 100])
@pytest.mark.parametrize(("n_fft", "hop"), [(16, 4), (16, 3), (16, 1)])
def test_the_inverse_returns_the_signal(samples: int, n_fft: int, hop: int) -> None:
    audio = np.random.default_rng(samples).normal(size=(2, samples)).astype(np.float32)
    back = istft(stft(audio, n_fft, hop), n_fft, hop, samples)
    np.testing.assert_allclose(back, audio, rtol=0, atol=2e-6)


def test_every_multiple_of_hop_in_the_signal_has_a_frame() -> None:
    assert [stft(np.zeros((1, n), np.float32), 16, 5).shape[1] for n in (0, 9, 10, 14, 15)] == [
        2, 2, 3, 3, 4
    ]  # fmt: skip


def test_a_sine_on_a_bin_leaks_half_its_amplitude_into_each_neighbour() -> None:
    sine = np.cos(2 * np.pi * 3 * np.arange(160) / 16).astype(np.float32)[None]
    frame = stft(sine, 16, 8)[0, 5] @ [1, 1j]
    np.testing.assert_allclose(np.abs(frame), [0, 0, 2, 4, 2, 0, 0, 0, 0], atol=1e-5)


def test_only_frames_that_overlap_an_impulse_see_it() -> None:
    impulse = np.eye(1, 100, dtype=np.float32)
    power = np.square(stft(impulse, 16, 4)).sum((0, 2, 3))
    assert (power > 0).tolist() == [True, True] + [False] * (len(power) - 2)


@pytest.mark.parametrize(("n_fft", "hop"), [(64, 16), (64, 13), (64, 1)])
def test_a_masked_spectrum_is_not_amplified_at_any_length(n_fft: int, hop: int) -> None:
    """The inverse must not divide by almost 0 where only the edge of a window covers a sample."""
    for samples in range(1, 200):
        random = np.random.default_rng(samples)
        audio = random.uniform(-1, 1, (1, samples)).astype(np.float32)
        spectrum = stft(audio, n_fft, hop)
        mask = random.uniform(-1, 1, spectrum.shape).astype(np.float32)
        assert np.abs(istft(spectrum * mask, n_fft, hop, samples)).max() < 8
