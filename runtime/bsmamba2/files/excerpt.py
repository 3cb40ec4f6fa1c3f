"""An excerpt of a song, for a preview: where it starts, and how long it is.

An excerpt is the samples from round(start · rate) to round((start + duration) · rate), or to the
end of the song. So excerpts that follow each other have every sample once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from bsmamba2.errors import AudioError


@dataclass(frozen=True)
class Excerpt:
    """A part of a song.

    Args:
        start_s: where it starts, in seconds from the start of the song.
        duration_s: its length in seconds; less if the song ends before. None: to the end.

    Raises:
        AudioError: a time is out of range.
    """

    start_s: float = 0.0
    duration_s: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.start_s) and self.start_s >= 0):
            raise AudioError(
                f"start_s must be 0 or more seconds; got {self.start_s:g}: times count from the "
                "start of the song"
            )
        if self.duration_s is not None and not (
            math.isfinite(self.duration_s) and self.duration_s > 0
        ):
            raise AudioError(
                f"duration_s must be more than 0 seconds; got {self.duration_s:g}: leave it out to "
                "separate to the end of the song"
            )

    @property
    def is_whole(self) -> bool:
        """Whether it is the whole song."""
        return self.start_s == 0 and self.duration_s is None

    def label(self, song_s: float | None = None) -> str:
        """Returns what the names of its files end with; empty for the whole song.

        ``_30s-45s``, or ``_30s-end`` if it ends with the song.

        Args:
            song_s: the length of the song in seconds. None: unknown; the label then has the end
                that was asked for.
        """
        if self.is_whole:
            return ""
        start = _seconds(self.start_s)
        if self.duration_s is None:
            return f"_{start}-end"
        end_s = self.start_s + self.duration_s
        is_beyond = song_s is not None and end_s > song_s
        return f"_{start}-{'end' if is_beyond else _seconds(end_s)}"

    def bounds(self, sample_rate: int) -> tuple[int, int | None]:
        """Returns the first sample and the one after the last; None for the end of the song.

        Raises:
            AudioError: it has no sample at this rate.
        """
        first = round(self.start_s * sample_rate)
        if self.duration_s is None:
            return first, None
        stop = round((self.start_s + self.duration_s) * sample_rate)
        if stop <= first:
            raise AudioError(
                f"duration_s must be at least a sample, {1 / sample_rate:.6f} s; got "
                f"{self.duration_s:g}"
            )
        return first, stop


WHOLE = Excerpt()
"""The whole song."""


def _seconds(seconds: float) -> str:
    """Formats seconds for a file name, to the microsecond: ``30s``, ``1.25s``."""
    return f"{seconds:.6f}".rstrip("0").rstrip(".") + "s"
