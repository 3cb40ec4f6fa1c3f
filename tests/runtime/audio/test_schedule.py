"""The grid of a stream: every frame is separated once, in order, for any lengths."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bsmamba2 import AudioError
from bsmamba2.audio.schedule import Schedule

LENGTHS = st.integers(1, 40)


@given(LENGTHS, LENGTHS, st.integers(0, 200))
def test_every_frame_is_kept_once_and_in_order(block: int, lookahead: int, frames: int) -> None:
    kept: list[int] = []
    for step in Schedule(block, lookahead).steps(frames):
        kept += range(step.block.start, step.lookahead.stop if step.last else step.block.stop)
    assert kept == list(range(frames))


@given(LENGTHS, LENGTHS, st.integers(1, 200))
def test_every_step_but_the_last_is_a_block_and_its_lookahead(
    block: int, lookahead: int, frames: int
) -> None:
    *steps, last = Schedule(block, lookahead).steps(frames)
    assert all(s.lookahead == slice(s.block.stop, s.block.stop + lookahead) for s in steps)
    assert all(s.block == slice(i * block, (i + 1) * block) for i, s in enumerate(steps))
    assert last.lookahead == slice(frames - 1, frames)
    assert last.last
    assert not any(step.last for step in steps)


def test_a_step_waits_for_its_whole_lookahead() -> None:
    assert Schedule(4, 3).next(8, 14) is None
    step = Schedule(4, 3).next(8, 15)
    assert step is not None
    assert step.lookahead == slice(12, 15)


@given(st.floats(0.5, 2000), st.floats(0.5, 2000), st.floats(0.1, 10))
def test_milliseconds_are_rounded_to_whole_frames(
    block_ms: float, lookahead_ms: float, frame_ms: float
) -> None:
    assume(min(block_ms, lookahead_ms) >= frame_ms / 2)
    schedule = Schedule.of_ms(block_ms, lookahead_ms, frame_ms)
    assert abs(schedule.block * frame_ms - block_ms) <= frame_ms * 0.500001
    assert abs(schedule.lookahead * frame_ms - lookahead_ms) <= frame_ms * 0.500001


@pytest.mark.parametrize(("block", "lookahead", "name"), [(0, 1, "block"), (3, 0, "lookahead")])
def test_a_length_below_one_frame_is_refused(block: int, lookahead: int, name: str) -> None:
    with pytest.raises(AudioError, match=f"{name} must be at least 1 frame; got 0"):
        Schedule(block, lookahead)


@pytest.mark.parametrize("block_ms", [1, 60_001])
def test_milliseconds_out_of_range_are_refused(block_ms: float) -> None:
    with pytest.raises(AudioError, match=rf"block_ms must be 10 ms, .*; got {block_ms}"):
        Schedule.of_ms(block_ms, 100, 10)
