"""Samples that came and are not yet used."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T", np.float32, np.float64)


class Fifo(Generic[T]):
    """A queue of samples, (channels, samples), whose memory follows what is in it.

    The samples lie in one buffer; it moves to the front, or to twice the room, only when the end is
    reached, so that pushes of one sample cost what they bring:

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
        """Takes (channels, n) in at the end."""
        end = self._last + samples.shape[-1]
        if end > self._buffer.shape[-1]:
            held = len(self)
            end -= self._first
            room = self._buffer
            if 2 * end > room.shape[-1]:
                room = np.empty((room.shape[0], 2 * end), room.dtype)
            room[:, :held] = self.peek(0, held)
            self._buffer, self._first, self._last = room, 0, held
        self._buffer[:, self._last : end] = samples
        self._last = end

    def peek(self, start: int, stop: int) -> npt.NDArray[T]:
        """Samples start to stop of what is held, as a view that the next append may change."""
        return self._buffer[:, self._first + start : self._first + stop]

    def drop(self, count: int) -> None:
        """Forgets the first samples."""
        self._first += count

    def take(self, count: int) -> npt.NDArray[T]:
        """The first samples, as a copy, and forgets them."""
        taken = self.peek(0, count).copy()
        self.drop(count)
        return taken
