"""How a stream is cut into steps: a grid of frames, anchored at frame 0.

A step takes a block and the lookahead that follows it, and the block's stems are done. The next
begins where the block ended. The last takes all that is left, so it needs no lookahead of its own;
one frame plays the part, and the stems of both are kept:

    │ block ───│ lookahead ──│
               │ block ───│ lookahead ──│
                          │ block ───│ lookahead ──│
                                     │ block ─────────│1│ ◀ the end
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bsmamba2.errors import AudioError

MAX_MS = 60_000.0
"""The longest block or lookahead: a step is held in memory, and a stream waits for it."""


@dataclass(frozen=True)
class Step:
    """The frames of one step."""

    block: slice
    lookahead: slice
    last: bool
    """Whether the lookahead's stems are kept too."""


@dataclass(frozen=True)
class Schedule:
    """Lengths in frames; another schedule is another output.

    Raises:
        AudioError: a length is less than one frame.
    """

    block: int
    lookahead: int

    def __post_init__(self) -> None:
        for name, frames in (("block", self.block), ("lookahead", self.lookahead)):
            if frames < 1:
                raise AudioError(f"{name} must be at least 1 frame; got {frames}")

    @classmethod
    def of_ms(cls, block_ms: float, lookahead_ms: float, frame_ms: float) -> Schedule:
        """The nearest whole frames, at least one of each.

        Args:
            block_ms, lookahead_ms: half a frame to :data:`MAX_MS`.
            frame_ms: from one frame to the next.

        Raises:
            AudioError: a length is out of range.
        """
        for name, length_ms in (("block_ms", block_ms), ("lookahead_ms", lookahead_ms)):
            if not frame_ms / 2 <= length_ms <= MAX_MS:
                raise AudioError(
                    f"{name} must be {frame_ms:g} ms, a frame of the model, to {MAX_MS:g} ms; "
                    f"{length_ms:g} came"
                )
        return cls(*(max(1, round(length / frame_ms)) for length in (block_ms, lookahead_ms)))

    @property
    def work_factor(self) -> float:
        """Frames computed for each that is done."""
        return (self.block + self.lookahead) / self.block

    def next(self, start: int, frames: int) -> Step | None:
        """The step at ``start``; None while too few of its frames are there."""
        cut, stop = start + self.block, start + self.block + self.lookahead
        return Step(slice(start, cut), slice(cut, stop), last=False) if stop <= frames else None

    def last(self, start: int, frames: int) -> Step:
        """The step at ``start`` that ends the stream after ``frames`` > ``start``."""
        return Step(slice(start, frames - 1), slice(frames - 1, frames), last=True)

    def steps(self, frames: int) -> Iterator[Step]:
        """All steps of a stream of so many frames."""
        start = 0
        while step := self.next(start, frames):
            yield step
            start = step.block.stop
        if start < frames:  # a lookahead remains after any step, so only nothing gives nothing
            yield self.last(start, frames)
