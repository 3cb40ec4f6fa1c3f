"""Places in stereo: each has its inter-channel relation, and silence stays silent."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bsmamba2.audio.array import Audio
from bsmamba2_training.stereo import PLACES, draw_matrix, draw_place, place, transform

RATE = 44100


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def voice() -> Audio:
    """Half a second of noise in the middle, then half a second of silence."""
    mono = np.where(np.arange(RATE) < RATE // 2, rng(0).standard_normal(RATE), 0)
    return np.stack([mono, mono]).astype(np.float32)


@given(seed=st.integers(0, 2**32 - 1), where=st.sampled_from(PLACES))
def test_a_placed_voice_is_finite_audible_and_silent_where_it_was(seed: int, where: str) -> None:
    placed = place(voice(), where, rng(seed))
    assert placed.shape == (2, RATE)
    assert placed.dtype == np.float32
    assert np.isfinite(placed).all()
    assert np.square(placed).sum() > 0.1 * np.square(voice()).sum()
    assert not placed[:, RATE // 2 + 8000 :].any()


@given(seed=st.integers(0, 2**32 - 1))
def test_a_hard_panned_voice_sounds_in_exactly_one_channel(seed: int) -> None:
    placed = place(voice(), "hard", rng(seed))
    assert sorted(bool(channel.any()) for channel in placed) == [False, True]


def test_voices_are_panned_to_both_sides_by_any_amount() -> None:
    levels = [np.square(place(voice(), "pan", rng(seed))).sum(axis=1) for seed in range(100)]
    ratios = [10 * np.log10(left / right) for left, right in levels]
    assert min(ratios) < -15
    assert max(ratios) > 15
    assert np.mean(np.abs(ratios) < 6) > 0.2


def test_an_antiphase_voice_cancels_in_mono() -> None:
    placed = place(voice(), "antiphase", rng(1))
    assert not placed.sum(axis=0).any()
    assert placed.any()


def test_one_channel_of_a_haas_voice_lags_by_up_to_30_ms() -> None:
    left, right = place(voice(), "haas", rng(2))
    lag = int(np.argmax(np.correlate(right, left[: RATE // 4], "valid")[:4000]))
    late = int(np.argmax(np.correlate(left, right[: RATE // 4], "valid")[:4000]))
    assert 44 <= max(lag, late) <= 0.03 * RATE


def test_the_takes_of_a_double_tracked_voice_differ() -> None:
    left, right = place(voice(), "double", rng(3))
    assert abs(np.corrcoef(left, right)[0, 1]) < 0.9


def test_every_place_and_every_kind_of_mixture_is_drawn() -> None:
    assert {draw_place(rng(seed)) for seed in range(100)} == set(PLACES)
    matrices = [draw_matrix(rng(seed)) for seed in range(200)]
    assert any(not matrix.any(axis=1).all() for matrix in matrices)  # a silent channel
    assert any(np.array_equal(matrix[0], matrix[1]) for matrix in matrices)  # mono
    assert any(np.array_equal(matrix, np.eye(2)) for matrix in matrices)
    assert any(np.array_equal(matrix, np.eye(2)[::-1]) for matrix in matrices)  # swapped


@pytest.mark.parametrize("seed", range(20))
def test_a_change_of_the_mixture_keeps_stems_and_their_sum_consistent(seed: int) -> None:
    first, second = voice(), place(voice(), "pan", rng(seed))
    matrix = draw_matrix(rng(seed))
    both = transform(first, matrix) + transform(second, matrix)
    np.testing.assert_allclose(transform(first + second, matrix), both, atol=1e-5)
