"""Features over time in a bounded number of columns, for audio of any length."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from bsmamba2.audio.array import Audio

Merge: TypeAlias = Callable[..., Any]
"""What turns neighbouring frames into one column: ``np.mean``, ``np.max`` or ``np.sum``."""

CAPACITY = 2048
"""The most columns of a timeline; a power of two."""


class Timeline:
    """Frames of features that are appended one after another; pairs merge when there are too many.

        8 frames, capacity 4     a b c d   →   ab cd   →   ab cd ef gh

    So a long song has between half the capacity and all of it, each column of
    :attr:`frames_per_column` frames.
    """

    def __init__(self, merge: Merge, capacity: int = CAPACITY) -> None:
        self._merge = merge
        self._capacity = capacity
        self._pending: Audio | None = None
        self._columns: Audio | None = None
        self.frames_per_column = 1

    @property
    def is_empty(self) -> bool:
        return self._pending is None

    def append(self, frames: Audio) -> None:
        """Appends (…, n): n frames."""
        pending = _join(self._pending, frames)
        while (whole := pending.shape[-1] // self.frames_per_column) > 0:
            held = 0 if self._columns is None else self._columns.shape[-1]
            if held == self._capacity:
                self._columns = self._merged(self._columns, 2)
                self.frames_per_column *= 2
                continue
            used = min(whole, self._capacity - held) * self.frames_per_column
            columns = self._merged(pending[..., :used], self.frames_per_column)
            self._columns = _join(self._columns, columns)
            pending = pending[..., used:]
        self._pending = pending

    def columns(self) -> Audio:
        """Returns (…, columns), including a last one that may be of fewer frames."""
        assert self._pending is not None, "nothing was appended"
        if not (rest := self._pending.shape[-1]):
            assert self._columns is not None
            return self._columns
        return _join(self._columns, self._merged(self._pending, rest))

    def _merged(self, frames: Audio | None, count: int) -> Audio:
        assert frames is not None
        groups = frames.reshape(*frames.shape[:-1], -1, count)
        merged: Audio = self._merge(groups, axis=-1)
        return merged


def _join(first: Audio | None, second: Audio) -> Audio:
    return second if first is None else np.concatenate([first, second], axis=-1)
