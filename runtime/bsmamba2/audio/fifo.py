"""A queue of samples that were received but not used yet."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T", np.float32, np.float64)


class Fifo(Generic[T]):
    """A queue of samples, (channels, samples), that grows with its content.

    The samples are contiguous in one buffer. They are moved only when they reach its end, to its
    front or to a buffer of twice the size, so appending takes amortised constant time per sample:

        |  dropped  |  held: len(fifo)  |  free  |
        0           first               last     room
    """

    def __init__(self, channels: int, dtype: type[T]) -> None:
        self._buffer: npt.NDArray[T] = np.zeros((channels, 1024), dtype)
        self._first = 0
        self._last = 0

    def __len__(self) -> int:
        return self._last - self._first

    def append(self, samples: npt.NDArray[Any]) -> None:
        """Appends (channels, n)."""
        end = self._last + samples.shape[-1]
        if end > self._buffer.shape[-1]:
            held = len(self)
            end -= self._first
            grown = self._buffer
            if 2 * end > grown.shape[-1]:
                grown = np.empty((grown.shape[0], 2 * end), grown.dtype)
            grown[:, :held] = self.peek(0, held)
            self._buffer, self._first, self._last = grown, 0, held
        self._buffer[:, self._last : end] = samples
        self._last = end

    def peek(self, start: int, stop: int) -> npt.NDArray[T]:
        """Returns samples start to stop, as a view that the next append may invalidate."""
        return self._buffer[:, self._first + start : self._first + stop]

    def drop(self, count: int) -> None:
        """Removes the first ``count`` samples."""
        self._first += count

    def take(self, count: int) -> npt.NDArray[T]:
        """Removes the first ``count`` samples and returns a copy of them."""
        taken = self.peek(0, count).copy()
        self.drop(count)
        return taken
