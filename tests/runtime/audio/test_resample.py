"""The resampler against physics: length, delay, and sines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bsmamba2 import AudioError
from bsmamba2.audio.array import Audio
from bsmamba2.audio.resample import Resampler
from support.fixtures import Noise

RATES = (8000, 11025, 22050, 32000, 44100, 44101, 48000, 88200, 96000, 192000)


def resampled(
    audio: Audio, in_rate: int, out_rate: int, cuts: Sequence[int] = (), length: int | None = None
) -> Audio:
    stream = Resampler(in_rate, out_rate, audio.shape[0])
    parts = [stream.push(part) for part in np.split(audio, cuts, axis=1)]
    return np.concatenate([*parts, stream.flush(length)], axis=1)


@pytest.mark.parametrize("rate", RATES)
def test_the_length_is_exact_in_both_directions(rate: int, noise: Noise) -> None:
    for length in (0, 1, 2, 3, 10, 99, 1000, 4411):
        there = resampled(noise(1, length), rate, 44100)
        assert there.shape[1] == round(length * 44100 / rate)
        assert resampled(there, 44100, rate, length=length).shape[1] == length


@pytest.mark.parametrize("rate", RATES)
def test_an_impulse_keeps_its_time(rate: int) -> None:
    audio = np.zeros((1, rate), np.float32)
    audio[0, rate // 2] = 1
    assert np.argmax(resampled(audio, rate, 44100)) == pytest.approx(22050, abs=0.5 * 44100 / rate)


@pytest.mark.parametrize("rate", RATES)
def test_a_sine_in_the_band_keeps_its_phase_and_amplitude(rate: int) -> None:
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
def test_output_does_not_depend_on_how_input_is_split(
    noise: Noise, rate: int, length: int, cuts: list[int]
) -> None:
    audio = noise(2, length)
    cuts = sorted(min(cut, length) for cut in cuts)
    np.testing.assert_array_equal(
        resampled(audio, rate, 44100, cuts), resampled(audio, rate, 44100)
    )


def test_samples_pass_unchanged_at_equal_rates(noise: Noise) -> None:
    audio = noise(2, 100)
    np.testing.assert_array_equal(resampled(audio, 44100, 44100, [30]), audio)


@pytest.mark.parametrize("rate", [0, -44100, 7999, 384001, float("nan"), float("inf")])
def test_an_unsupported_rate_is_refused(rate: float) -> None:
    with pytest.raises(AudioError, match=f"sample_rate must be 8000 to 384000 Hz; got {rate}: "):
        Resampler(rate, 44100, 1)
