"""The computed latency equals the largest one in a simulation of the stream's parts."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bsmamba2.audio.latency import Delay, Jumps, latency_samples

NO_RESAMPLER = Delay(Fraction(1), 0)


def simulate(there: Delay, jumps: Jumps, back: Delay, samples: int) -> int:
    """Returns the most samples held back while ``samples`` are received one by one."""

    def output(received: int) -> int:
        reached = (there.output_samples(received) - jumps.first) // jumps.period
        return back.output_samples(max(0, jumps.done + reached * jumps.period))

    return max(received - output(received) for received in range(samples))


@given(
    st.fractions(Fraction(1, 4), 4, max_denominator=5),
    st.integers(0, 30), st.integers(0, 30), st.integers(1, 40), st.integers(1, 20),
)  # fmt: skip
def test_latency_equals_the_most_samples_held_back_in_a_simulation(
    ratio: Fraction, delay_there: int, delay_back: int, first: int, period: int
) -> None:
    there, back = Delay(ratio, delay_there), Delay(1 / ratio, delay_back)
    jumps = Jumps(first + period, period, period)
    expected = simulate(there, jumps, back, samples=3000)
    assert latency_samples(there, jumps, back) == expected


def test_without_resampling_a_chunk_is_held_back_until_its_last_sample() -> None:
    assert latency_samples(NO_RESAMPLER, Jumps(64, 64, 64), NO_RESAMPLER) == 63


@pytest.mark.parametrize(("received", "expected"), [(0, 0), (9, 0), (10, 0), (12, 1), (20, 5)])
def test_a_resampler_outputs_nothing_until_its_delay_has_passed(
    received: int, expected: int
) -> None:
    assert Delay(Fraction(1, 2), 5).output_samples(received) == expected
