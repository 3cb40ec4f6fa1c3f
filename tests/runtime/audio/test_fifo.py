"""A queue returns its samples in order, and its memory stays proportional to its content."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bsmamba2.audio.fifo import Fifo
from support.fixtures import Noise


@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 3000)), max_size=20))
def test_samples_leave_in_the_order_in_which_they_arrived(
    noise: Noise, pushes_and_takes: list[tuple[int, int]]
) -> None:
    audio, fifo, received, emitted = noise(2, 60_000), Fifo(2, np.float32), 0, 0
    for push, take in pushes_and_takes:
        fifo.append(audio[:, received : received + push])
        received += push
        samples = fifo.take(min(take, len(fifo)))
        np.testing.assert_array_equal(samples, audio[:, emitted : emitted + samples.shape[1]])
        emitted += samples.shape[1]
        assert len(fifo) == received - emitted


def test_a_peek_is_relative_to_the_first_sample_held(noise: Noise) -> None:
    audio, fifo = noise(1, 100), Fifo(1, np.float32)
    fifo.append(audio)
    fifo.drop(30)
    np.testing.assert_array_equal(fifo.peek(10, 20), audio[:, 40:50])
    assert len(fifo) == 70


def test_a_taken_copy_does_not_change_with_later_appends(noise: Noise) -> None:
    audio, fifo = noise(1, 1024), Fifo(1, np.float32)
    fifo.append(audio)
    taken = fifo.take(1024)
    fifo.append(-audio)
    np.testing.assert_array_equal(taken, audio)


def test_memory_does_not_grow_with_the_number_of_samples_passed_through() -> None:
    fifo = Fifo(1, np.float32)
    for _ in range(1000):
        fifo.append(np.zeros((1, 1000), np.float32))
        fifo.take(1000)
    assert fifo._buffer.shape[1] <= 4096
