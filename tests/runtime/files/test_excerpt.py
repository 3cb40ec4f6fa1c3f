"""Excerpts: bounds in samples, names, and the values that are refused."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bsmamba2 import AudioError
from bsmamba2.files.excerpt import WHOLE, Excerpt


@given(
    cuts=st.lists(st.integers(1, 10_000_000), min_size=3, max_size=3, unique=True).map(sorted),
    rate=st.sampled_from([8000, 44100, 96000]),
)
def test_excerpts_that_follow_each_other_share_no_sample_and_leave_none_out(
    cuts: list[int], rate: int
) -> None:
    a, b, c = (cut / 1000 for cut in cuts)
    first, second = Excerpt(a, b - a).bounds(rate), Excerpt(b, c - b).bounds(rate)
    assert first[1] == second[0] == round(b * rate)
    assert second[1] == Excerpt(c).bounds(rate)[0]


def test_the_whole_song_has_no_end_and_no_label() -> None:
    assert (WHOLE.bounds(44100), WHOLE.label(20), WHOLE.is_whole) == ((0, None), "", True)


@pytest.mark.parametrize(
    ("excerpt", "label"),
    [
        (Excerpt(30, 15), "_30s-45s"),
        (Excerpt(0, 15), "_0s-15s"),
        (Excerpt(90.25), "_90.25s-end"),
        (Excerpt(0.1, 0.2), "_0.1s-0.3s"),
    ],
)
def test_the_label_states_both_ends(excerpt: Excerpt, label: str) -> None:
    assert excerpt.label() == excerpt.label(91) == label


@pytest.mark.parametrize(
    ("excerpt", "label"),
    [
        (Excerpt(15, 60), "_15s-end"),
        (Excerpt(19.5, 1), "_19.5s-end"),
        (Excerpt(0, 60), "_0s-end"),
        (Excerpt(15, 5), "_15s-20s"),
    ],
)
def test_the_label_names_no_time_after_the_end_of_the_song(excerpt: Excerpt, label: str) -> None:
    assert excerpt.label(20) == label


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((-1, None), "start_s must be 0 or more seconds; got -1"),
        ((math.nan, None), "start_s must be 0 or more"),
        ((math.inf, None), "start_s must be 0 or more"),
        ((0, 0), "duration_s must be more than 0 seconds; got 0"),
        ((0, -3), "duration_s must be more than 0"),
        ((0, math.inf), "duration_s must be more than 0"),
    ],
)
def test_a_time_out_of_range_is_refused(values: tuple[float, float | None], message: str) -> None:
    with pytest.raises(AudioError, match=message):
        Excerpt(*values)


def test_an_excerpt_without_a_sample_is_refused() -> None:
    with pytest.raises(AudioError, match=r"at least a sample, 0\.000125 s; got 1e-05"):
        Excerpt(1, 1e-5).bounds(8000)
