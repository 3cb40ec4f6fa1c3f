"""The grid of a stream: every frame is done once, in order, whatever the lengths."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bsmamba2 import AudioError
from bsmamba2.audio.schedule import Schedule

LENGTHS = st.integers(1, 40)


@given(LENGTHS, LENGTHS, st.integers(0, 200))
def test_every_frame_is_done_once_and_in_order(block, lookahead, frames):
    done = []
    for step in Schedule(block, lookahead).steps(frames):
        done += range(step.block.start, step.lookahead.stop if step.last else step.block.stop)
    assert done == list(range(frames))


@given(LENGTHS, LENGTHS, st.integers(1, 200))
def test_all_steps_but_the_last_are_the_block_and_its_lookahead(block, lookahead, frames):
    *steps, last = Schedule(block, lookahead).steps(frames)
    assert all(s.lookahead == slice(s.block.stop, s.block.stop + lookahead) for s in steps)
    assert all(s.block == slice(i * block, (i + 1) * block) for i, s in enumerate(steps))
    assert last.lookahead == slice(frames - 1, frames)
    assert last.last
    assert not any(step.last for step in steps)


def test_a_step_waits_for_all_of_its_lookahead():
    assert Schedule(4, 3).next(8, 14) is None
    assert Schedule(4, 3).next(8, 15).lookahead == slice(12, 15)


def test_the_work_is_what_is_computed_for_what_is_done():
    assert Schedule(4, 12).work_factor == 4


@given(st.floats(0.5, 2000), st.floats(0.5, 2000), st.floats(0.1, 10))
def test_milliseconds_are_the_nearest_whole_frames(block_ms, lookahead_ms, frame_ms):
    assume(min(block_ms, lookahead_ms) >= frame_ms / 2)
    made = Schedule.of_ms(block_ms, lookahead_ms, frame_ms)
    assert abs(made.block * frame_ms - block_ms) <= frame_ms * 0.500001
    assert abs(made.lookahead * frame_ms - lookahead_ms) <= frame_ms * 0.500001


@pytest.mark.parametrize(("block", "lookahead", "name"), [(0, 1, "block"), (3, 0, "lookahead")])
def test_a_length_below_one_frame_is_refused(block, lookahead, name):
    with pytest.raises(AudioError, match=f"{name} must be at least 1 frame; got 0"):
        Schedule(block, lookahead)
