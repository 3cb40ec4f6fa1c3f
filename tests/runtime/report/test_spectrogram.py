"""Spectrograms show a tone in its band, at its level."""

from __future__ import annotations

import numpy as np
import pytest

from bsmamba2.audio.array import Audio
from bsmamba2.report.png import COLOURS
from bsmamba2.report.spectrogram import RANGE_DB, ROWS, Bands, decibels, picture


def tone(bands: Bands, hz: float, rate: float) -> Audio:
    """A frame of a full-scale sine, (1, 1, frame)."""
    sine = np.sin(2 * np.pi * hz * np.arange(bands.frame) / rate)
    return sine.astype(np.float32)[np.newaxis, np.newaxis]


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 96000, 384000])
def test_a_higher_tone_is_in_a_higher_row(rate: int) -> None:
    bands = Bands(rate, has_sum=False)
    rows = [int(bands.power(tone(bands, hz, rate), 1)[0, :, 0].argmax()) for hz in (150, 900, 3000)]
    assert rows == sorted(rows)
    assert rows[0] < ROWS / 4
    assert rows[2] > ROWS / 3


def test_every_row_sees_its_own_frequencies() -> None:
    bands = Bands(44100, has_sum=False)
    impulse = np.zeros((1, 1, bands.frame), np.float32)
    impulse[..., bands.frame // 2] = 1
    assert (bands.power(impulse, 1) > 0).all()


def test_the_first_track_is_the_sum_of_the_stems() -> None:
    bands = Bands(44100, has_sum=True)
    frame = tone(bands, 1000, 44100)
    power = bands.power(np.concatenate([frame, -frame]), 1)
    assert power.shape == (3, ROWS, 1)
    assert power[0].max() < 1e-9 < power[1].max()
    np.testing.assert_array_equal(power[1], power[2])


def test_labels_of_frequencies_rise_and_stay_inside() -> None:
    heights = [height for height, _ in Bands(44100, has_sum=False).ticks()]
    assert heights == sorted(heights)
    assert 0 < heights[0] < heights[-1] < 1
    assert [text for _, text in Bands(8000, has_sum=False).ticks()] == ["300", "1k", "3k"]


def test_a_picture_spans_its_range_with_the_highest_frequency_on_top() -> None:
    power = np.full((ROWS, 2), 1e-20, np.float32)
    power[-1, 0], power[0, 1] = 1, 10 ** (-RANGE_DB / 20)
    image = picture(power, top_db=0)
    assert (image[0, 0], image[-1, 1]) == (COLOURS - 1, COLOURS // 2 - 1)
    assert np.count_nonzero(image) == 2


def test_silence_has_a_finite_level() -> None:
    assert decibels([0.0, 1.0]).tolist() == [-200, 0]
