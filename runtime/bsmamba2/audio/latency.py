"""How many samples a stream holds back: exactly, from the grids of its parts.

A resampler gives floor(n · ratio) − delay samples once n have come. What runs the model gives
nothing for long, then many at once: its output jumps. Just before a jump most is held back, and
where in a sample of the other rate the jump falls differs from one to the next, until the pattern
comes again.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Jumps:
    """When a part's output comes, in samples: ``done`` + k · ``period`` in all, as soon as
    ``first`` + k · ``period`` have come; nothing where that is negative."""

    first: int
    done: int
    period: int


@dataclass(frozen=True)
class Delay:
    """A resampler's output once n samples have come: floor(n · ratio) − samples, or nothing."""

    ratio: Fraction
    samples: int

    def out(self, came: int) -> int:
        return max(0, came * self.ratio.numerator // self.ratio.denominator - self.samples)


MOST_PHASES = 1 << 17
"""After as many jumps the pattern has come again, wherever the rates are whole numbers of Hz."""


def latency_samples(there: Delay, jumps: Jumps, back: Delay) -> int:
    """The most that can have come and not gone out, in samples of the input.

    Args:
        there: from the input's rate to the model's.
        jumps: at the model's rate.
        back: from the model's rate to the input's.
    """
    phases = min(there.ratio.numerator, MOST_PHASES)
    # The first jumps after which nothing is cut off at 0 any more.
    cut_off = abs(jumps.done) + 2 + int((back.samples + 1) / back.ratio)
    first = cut_off // jumps.period + 2
    return max(_held(there, jumps, back, k) for k in range(first, first + phases))


def _held(there: Delay, jumps: Jumps, back: Delay, k: int) -> int:
    """What is held back when one sample more would bring jump k."""
    ratio = there.ratio
    place = jumps.first + k * jumps.period + there.samples
    came = -(-place * ratio.denominator // ratio.numerator) - 1
    return came - back.out(jumps.done + (k - 1) * jumps.period)
