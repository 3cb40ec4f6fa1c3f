"""The signal-to-noise ratio of known errors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bsmamba2.audio.snr import IDENTICAL_DB, describe_snr, snr_db
from support.fixtures import Noise


@given(st.floats(-60, 60))
def test_an_error_of_known_level_gives_that_snr(noise: Noise, db: float) -> None:
    reference = noise(2, 1000)
    estimate = (reference * (1 + 10 ** (-db / 20))).astype(np.float32)
    assert snr_db(reference, estimate) == pytest.approx(db, abs=0.01)


def test_a_perfect_estimate_has_infinite_snr(noise: Noise) -> None:
    assert snr_db(noise(2, 9), noise(2, 9)) == np.inf


def test_an_error_in_silence_has_no_snr(noise: Noise) -> None:
    assert snr_db(np.zeros((2, 9), np.float32), noise(2, 9)) == -np.inf


def test_an_infinite_snr_is_described_in_words() -> None:
    assert [describe_snr(db) for db in (95.26, IDENTICAL_DB, np.inf)] == [
        "95.3 dB",
        "exact agreement",
        "exact agreement",
    ]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_estimate_that_is_not_finite_has_no_snr(noise: Noise, value: float) -> None:
    estimate = noise(2, 9)
    estimate[0, 0] = value
    assert snr_db(noise(2, 9), estimate) == -np.inf


def test_an_estimate_of_another_shape_has_no_snr(noise: Noise) -> None:
    assert snr_db(noise(2, 9), noise(2, 10)) == -np.inf


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_reference_that_is_not_finite_is_reproduced_by_nothing(
    noise: Noise, value: float
) -> None:
    reference = noise(2, 9)
    reference[0, 0] = value
    assert snr_db(reference, noise(2, 9)) == -np.inf


def test_only_silence_reproduces_silence() -> None:
    silence = np.zeros((2, 9), np.float32)
    assert snr_db(silence, silence) == np.inf
    assert snr_db(silence, silence + 1) == -np.inf
