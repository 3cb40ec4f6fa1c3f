"""The resampler against physics: length, delay, and sines."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bsmamba2 import AudioError
from bsmamba2.audio.resample import Resampler

RATES = (8000, 11025, 22050, 32000, 44100, 44101, 48000, 88200, 96000, 192000)


def resampled(audio, in_rate, out_rate, cuts=(), length=None):
    stream = Resampler(in_rate, out_rate, audio.shape[0])
    parts = [stream.push(part) for part in np.split(audio, cuts, axis=1)]
    return np.concatenate([*parts, stream.flush(length)], axis=1)


@pytest.mark.parametrize("rate", RATES)
def test_the_length_is_exact_there_and_back(rate, noise):
    for length in (0, 1, 2, 3, 10, 99, 1000, 4411):
        there = resampled(noise(1, length), rate, 44100)
        assert there.shape[1] == round(length * 44100 / rate)
        assert resampled(there, 44100, rate, length=length).shape[1] == length


@pytest.mark.parametrize("rate", RATES)
def test_an_impulse_stays_at_its_time(rate):
    audio = np.zeros((1, rate), np.float32)
    audio[0, rate // 2] = 1
    assert np.argmax(resampled(audio, rate, 44100)) == pytest.approx(22050, abs=0.5 * 44100 / rate)


@pytest.mark.parametrize("rate", RATES)
def test_a_sine_in_the_band_has_the_phase_it_had(rate):
    hz, there = 0.45 * min(rate, 44100), np.arange(rate)
    audio = np.sin(2 * np.pi * hz * there / rate)[np.newaxis].astype(np.float32)
    expected = np.sin(2 * np.pi * hz * np.arange(44100) / 44100)
    inner = slice(2205, -2205)
    error = np.abs(resampled(audio, rate, 44100)[0] - expected)[inner]
    assert error.max() < 1e-4


@given(
    rate=st.integers(8000, 192000),
    length=st.integers(0, 3000),
    cuts=st.lists(st.integers(0, 3000), max_size=9),
)
def test_the_output_does_not_depend_on_the_pushes(noise, rate, length, cuts):
    audio = noise(2, length)
    cuts = sorted(min(cut, length) for cut in cuts)
    np.testing.assert_array_equal(
        resampled(audio, rate, 44100, cuts), resampled(audio, rate, 44100)
    )


def test_at_equal_rates_the_samples_pass_untouched(noise):
    audio = noise(2, 100)
    np.testing.assert_array_equal(resampled(audio, 44100, 44100, [30]), audio)


@pytest.mark.parametrize("rate", [0, -44100, 7999, 384001, float("nan"), float("inf")])
def test_a_rate_that_no_music_has_is_refused(rate):
    with pytest.raises(AudioError, match="sample_rate must be 8000 to 384000 Hz"):
        Resampler(rate, 44100, 1)
