"""Each transform is inverted exactly and has the frames that its network was trained on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bsmamba2.audio.array import Audio
from bsmamba2.audio.transforms import KINDS


def noise(samples: int) -> Audio:
    audio: Audio = np.random.default_rng(samples).normal(size=(2, samples)).astype(np.float32)
    return audio


@pytest.mark.parametrize("kind", ["hann", "scnet"])
@given(samples=st.integers(1, 300))
def test_the_inverse_returns_the_signal(kind: str, samples: int) -> None:
    transform = KINDS[kind](64, 16)
    back = transform.synthesise(transform.analyse(noise(samples)), samples)
    np.testing.assert_allclose(back, noise(samples), rtol=0, atol=5e-6)


@given(samples=st.integers(200, 300))
def test_ht_demucs_returns_what_its_bins_can_carry(samples: int) -> None:
    """It drops the highest bin, so the signal must have nothing there."""
    transform = KINDS["htdemucs"](64, 16)
    low = np.cos(2 * np.pi * 5 / 64 * np.arange(samples)).astype(np.float32)[None]
    back = transform.synthesise(transform.analyse(low), samples)
    np.testing.assert_allclose(back[:, 32:-32], low[:, 32:-32], rtol=0, atol=2e-3)


@given(samples=st.integers(33, 300))
def test_scnet_sees_an_even_number_of_frames_and_always_some_padding(samples: int) -> None:
    frames = KINDS["scnet"](64, 16).analyse(noise(samples)).shape[1]
    assert frames % 2 == 0
    assert (frames - 1) * 16 > samples


@pytest.mark.parametrize(
    ("kind", "samples", "shape"),
    [
        ("hann", 352800, (2, 345, 2049, 2)),
        ("scnet", 485100, (2, 476, 2049, 2)),
        ("htdemucs", 343980, (2, 336, 2048, 2)),
    ],
)
def test_published_chunks_have_the_published_sizes(
    kind: str, samples: int, shape: tuple[int, ...]
) -> None:
    assert KINDS[kind](4096, 1024).analyse(np.zeros((2, samples), np.float32)).shape == shape


@pytest.mark.parametrize("kind", ["scnet", "htdemucs"])
def test_normalised_spectra_have_the_scale_of_white_noise(kind: str) -> None:
    """Divided by √n_fft, a bin of unit noise has the window's mean square as its power."""
    bins = KINDS[kind](1024, 256).analyse(noise(100_000))[:, 4:-4, 1:-1]
    expected = {"scnet": 1.0, "htdemucs": 0.375}[kind]
    assert np.square(bins).sum(-1).mean() == pytest.approx(expected, rel=0.02)
