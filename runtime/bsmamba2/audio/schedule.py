"""The steps of a stream, on a grid of frames that starts at frame 0.

A step separates a block; the lookahead that follows it is context. The next step starts where the
block ended. The last step takes all remaining frames: one frame serves as its lookahead, and the
stems of both block and lookahead are kept:

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
"""The longest block or lookahead: a stream waits for a whole step, and keeps it in memory."""


@dataclass(frozen=True)
class Step:
    """The frames of one step."""

    block: slice
    lookahead: slice
    last: bool
    """Whether the stems of the lookahead are kept too."""


@dataclass(frozen=True)
class Schedule:
    """The lengths of block and lookahead in frames; the output depends on both.

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
        """Rounds lengths in ms to whole frames, at least one each.

        Args:
            block_ms, lookahead_ms: half a frame to :data:`MAX_MS`.
            frame_ms: time from one frame to the next.

        Raises:
            AudioError: a length is out of range.
        """
        for name, length_ms in (("block_ms", block_ms), ("lookahead_ms", lookahead_ms)):
            if not frame_ms / 2 <= length_ms <= MAX_MS:
                raise AudioError(
                    f"{name} must be {frame_ms:g} ms, a frame of the model, to {MAX_MS:g} ms; "
                    f"got {length_ms:g}"
                )
        return cls(*(max(1, round(length / frame_ms)) for length in (block_ms, lookahead_ms)))

    def next(self, start: int, frames: int) -> Step | None:
        """Returns the step at ``start``, or None if it needs more than ``frames`` frames."""
        middle, stop = start + self.block, start + self.block + self.lookahead
        if stop > frames:
            return None
        return Step(slice(start, middle), slice(middle, stop), last=False)

    def last(self, start: int, frames: int) -> Step:
        """Returns the step at ``start`` that ends a stream of ``frames`` > ``start`` frames."""
        return Step(slice(start, frames - 1), slice(frames - 1, frames), last=True)

    def steps(self, frames: int) -> Iterator[Step]:
        """Yields all steps of a stream of ``frames`` frames."""
        start = 0
        while step := self.next(start, frames):
            yield step
            start = step.block.stop
        # Every step leaves its lookahead, so frames remain unless there were none.
        if start < frames:
            yield self.last(start, frames)
