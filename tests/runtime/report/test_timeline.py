"""A timeline keeps any number of frames in a bounded number of columns."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bsmamba2.report.timeline import Timeline


@given(st.lists(st.integers(0, 30), min_size=1, max_size=12))
def test_columns_are_the_maxima_of_equal_groups_however_frames_arrive(counts: list[int]) -> None:
    frames = np.random.default_rng(0).random(sum(counts)).astype(np.float32)
    timeline, at = Timeline(np.max, capacity=8), 0
    for count in counts:
        timeline.append(frames[np.newaxis, at : at + count])
        at += count
    if len(frames):
        group = timeline.frames_per_column
        expected = [frames[start : start + group].max() for start in range(0, len(frames), group)]
        np.testing.assert_array_equal(timeline.columns()[0], expected)


@pytest.mark.parametrize(("frames", "columns", "group"), [(3, 3, 1), (8, 8, 1), (9, 5, 2)])
def test_pairs_merge_when_a_timeline_is_full(frames: int, columns: int, group: int) -> None:
    timeline = Timeline(np.mean, capacity=8)
    timeline.append(np.ones((1, frames), np.float32))
    assert timeline.columns().shape == (1, columns)
    assert timeline.frames_per_column == group


def test_a_new_timeline_is_empty() -> None:
    timeline = Timeline(np.mean)
    assert timeline.is_empty
    timeline.append(np.ones((1, 1), np.float32))
    assert not timeline.is_empty
