"""Metrics on signals with known scores."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from bsmamba2.audio.array import Audio
from bsmamba2_training.metrics import (
    csdr_db,
    find_stretches,
    leakage_db,
    level_db,
    si_sdr_db,
    sparse_usdr_db,
    usdr_db,
)

Tone = Callable[[float, float], Audio]
Hiss = Callable[..., Audio]

RATE = 44100


@pytest.fixture
def voice(tone: Tone) -> Audio:
    """Ten seconds in two channels that sound from 2 to 3.5 s and from 5 to 8 s."""
    audio = np.repeat(tone(440, 10)[np.newaxis], 2, axis=0)
    for start, stop in ((0, 2), (3.5, 5), (8, 10)):
        audio[:, int(start * RATE) : int(stop * RATE)] = 0
    return audio


def test_noise_at_minus_20_db_scores_20_db(hiss: Hiss) -> None:
    s, n = hiss(1, 2), hiss(1, 2, seed=1)
    assert usdr_db(s, s + 0.1 * n) == pytest.approx(20, abs=0.2)
    assert si_sdr_db(s, s + 0.1 * n) == pytest.approx(20, abs=0.2)


def test_a_gain_lowers_usdr_but_not_si_sdr(hiss: Hiss) -> None:
    s, n = hiss(1, 2), hiss(1, 2, seed=1)
    assert usdr_db(s, 0.5 * s) == pytest.approx(6.02, abs=0.01)
    noisy: Audio = s + 0.1 * n
    assert si_sdr_db(s, 0.5 * noisy) == pytest.approx(20, abs=0.2)


def test_csdr_is_the_median_over_the_seconds_that_contain_the_source(hiss: Hiss) -> None:
    s, other = hiss(5, 2), hiss(5, 2, seed=1)
    s[:, : 2 * RATE] = 0  # windows without a score
    error = 0.1 * hiss(5, 2, seed=2)
    vocals, _ = csdr_db((s, other), (s + error, other - error))
    assert vocals == pytest.approx(20, abs=1)


def test_stretches_follow_the_voice(voice: Audio) -> None:
    actual = [(s.start / RATE, s.stop / RATE, s.has_voice, s.length) for s in find_stretches(voice)]
    expected = [
        (0, 2, False, "2-4 s"),
        (2, 3.5, True, "1-2 s"),
        (3.5, 5, False, "1-2 s"),
        (5, 8, True, "2-4 s"),
        (8, 10, False, "2-4 s"),
    ]
    for one, other in zip(actual, expected, strict=True):
        assert one[:2] == pytest.approx(other[:2], abs=0.02)
        assert one[2:] == other[2:]


def test_a_pause_under_half_a_second_belongs_to_the_voice(tone: Tone) -> None:
    audio = np.repeat(tone(440, 3)[np.newaxis], 2, axis=0)
    audio[:, RATE : RATE + RATE // 3] = 0
    assert len(list(find_stretches(audio))) == 1


def test_each_stretch_has_its_own_score(voice: Audio) -> None:
    estimate = voice.copy()
    estimate[:, 5 * RATE : 8 * RATE] *= 0.9
    scores = sparse_usdr_db(voice, estimate)
    assert scores["1-2 s"][0] > 60
    assert scores["2-4 s"] == pytest.approx([20], abs=0.1)


def test_leakage_is_measured_only_where_no_voice_sounds(voice: Audio, hiss: Hiss) -> None:
    music = hiss(10, 2)
    estimate = voice + 10 ** (-30 / 20) * music
    assert leakage_db(voice + music, voice, estimate) == pytest.approx(-30, abs=0.1)
    assert leakage_db(voice + music, voice, voice) == -100


def test_a_song_with_voice_throughout_has_no_leakage_score(tone: Tone) -> None:
    audio = np.repeat(tone(440, 2)[np.newaxis], 2, axis=0)
    assert leakage_db(audio, audio, audio) is None


@pytest.mark.parametrize("gain", [1.0, 0.1, -0.5])
def test_the_level_of_a_voice_is_its_gain_in_the_estimate_whatever_else_leaks(gain: float) -> None:
    t = np.arange(44100) / 44100
    voice, other = (np.stack([np.sin(2 * np.pi * hz * t)] * 2) for hz in (440, 1000))
    level = level_db(voice, gain * voice + 3 * other)
    assert level == pytest.approx(20 * np.log10(abs(gain)), abs=0.01)
    assert level_db(voice, 0 * voice) == -100
    assert level_db(0 * voice, voice) == 0
