"""Mixes: how they are written, and what they refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bsmamba2 import AudioError, ModelError
from bsmamba2.pipeline.mix import Mix, apply
from support.fixtures import Noise

KNOWN = ("vocals", "drums", "other", "instrumental")


@pytest.mark.parametrize(
    "text",
    [
        "vocals=-14,instrumental=0",
        " vocals = -14 dB , instrumental=0dB",
        "vocals=−14,instrumental=0",
    ],
)
def test_a_mix_is_read_as_people_write_it(text: str) -> None:
    assert Mix.parse(text).gains_db == {"vocals": -14, "instrumental": 0}


def test_aliases_name_stems_and_a_stem_of_that_name_comes_first() -> None:
    assert Mix({"voice": 0, "other": -6}).resolve(KNOWN) == {"vocals": 0, "other": -6}
    assert Mix({"other": -6}).resolve(("vocals", "instrumental")) == {"instrumental": -6}


def test_weights_are_amplitudes_and_stems_that_are_not_listed_are_silent() -> None:
    weights = Mix.parse("vocals=-20,drums=-inf,instrumental=6").weights(KNOWN)
    assert weights == pytest.approx((0.1, 0, 0, 1.99526), rel=1e-5)


def test_a_mix_is_the_weighted_sum(noise: Noise) -> None:
    stems = np.stack([noise(2, 9, seed) for seed in (0, 1)])
    np.testing.assert_allclose(apply((0.5, 2), stems), 0.5 * stems[0] + 2 * stems[1], atol=1e-6)


@pytest.mark.parametrize(
    "text", ["", "vocals", "vocals=", "=3", "vocals=loud", "vocals=nan", "vocals=1,", "vocals:3"]
)
def test_another_form_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(AudioError, match="such as vocals=-14,instrumental=0"):
        Mix.parse(text)


@pytest.mark.parametrize("gain_db", [40.1, math.inf, math.nan])
def test_a_gain_out_of_range_is_refused(gain_db: float) -> None:
    with pytest.raises(AudioError, match="gain of vocals must be -inf, or at most 40 dB"):
        Mix({"vocals": gain_db})


@pytest.mark.parametrize("gains", [{}, {"vocals": -math.inf}])
def test_a_mix_of_silence_is_refused(gains: dict[str, float]) -> None:
    with pytest.raises(AudioError, match="must have a stem that is not silent"):
        Mix(gains)


def test_two_gains_for_one_stem_are_refused() -> None:
    with pytest.raises(AudioError, match="one gain; got vocals twice"):
        Mix.parse("vocals=0,vocals=1")
    with pytest.raises(AudioError, match="one gain; got vocals twice"):
        Mix({"vocals": 0, "voice": 1}).resolve(KNOWN)


def test_an_unknown_stem_is_refused_with_those_there_are() -> None:
    with pytest.raises(ModelError, match="must be one of vocals, drums"):
        Mix({"bass": 0}).resolve(KNOWN)
