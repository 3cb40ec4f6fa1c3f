"""The exact latency of a stream, computed from the grids of its parts.

After n input samples a resampler has output floor(n · ratio) − delay samples. The part that runs
the model outputs nothing for a while and then many samples together: its output jumps. The stream
holds back the most samples just before a jump. At the other sample rate, jumps fall at varying
fractions of a sample; the pattern repeats after a number of jumps.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Jumps:
    """The output of the part that runs the model, in samples.

    After ``first`` + k · ``period`` input samples, it has output ``done`` + k · ``period`` samples
    in total, or 0 where that is negative.
    """

    first: int
    done: int
    period: int


@dataclass(frozen=True)
class Delay:
    """A resampler's output after n input samples: floor(n · ratio) − ``samples``, at least 0."""

    ratio: Fraction
    samples: int

    def output_samples(self, received: int) -> int:
        """Returns the total output after ``received`` input samples."""
        return max(0, received * self.ratio.numerator // self.ratio.denominator - self.samples)


MAX_PHASES = 1 << 17
"""The pattern repeats within this many jumps if the rates are whole numbers of Hz."""


def latency_samples(there: Delay, jumps: Jumps, back: Delay) -> int:
    """Returns the most samples that can have been received but not output, at the input's rate.

    Args:
        there: resampling from the input's rate to the model's.
        jumps: output of the model, at its rate.
        back: resampling from the model's rate to the input's.
    """
    phases = min(there.ratio.numerator, MAX_PHASES)
    # Skip the first jumps, where outputs are still clamped to 0.
    clamped = abs(jumps.done) + 2 + int((back.samples + 1) / back.ratio)
    first = clamped // jumps.period + 2
    return max(_held_back(there, jumps, back, k) for k in range(first, first + phases))


def _held_back(there: Delay, jumps: Jumps, back: Delay, k: int) -> int:
    """Returns the samples held back when one more input sample would cause jump k."""
    ratio = there.ratio
    position = jumps.first + k * jumps.period + there.samples
    received = -(-position * ratio.denominator // ratio.numerator) - 1
    return received - back.output_samples(jumps.done + (k - 1) * jumps.period)
