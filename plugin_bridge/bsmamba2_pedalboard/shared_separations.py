"""Separations that several effects with the same input share."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from typing import Protocol

from bsmamba2 import Stems, Stream
from bsmamba2.audio.array import Audio


class StemStream(Protocol):
    """Separates a stream into stems: a :class:`bsmamba2.Stream`, or a reader of a shared one."""

    @property
    def latency_samples(self) -> int:
        """The most samples that have gone in and not come out."""
        ...

    def push(self, audio: Audio) -> Stems:
        """Takes (channels, n), returns stems of (channels, m)."""
        ...

    def flush(self) -> Stems:
        """Ends the signal; returns the samples that have not come out yet."""
        ...


class SharedSeparations:
    """The separations of one input. Effects with equal keys share one stream."""

    def __init__(self) -> None:
        self._streams: dict[Hashable, _SharedStream] = {}

    def open(self, key: Hashable, open_stream: Callable[[], Stream]) -> StemStream:
        """Returns a reader of the key's stream, which runs once for all of its readers.

        All readers of a key must push the same audio.
        """
        if key not in self._streams:
            self._streams[key] = _SharedStream(open_stream())
        return self._streams[key].add_reader()


class _SharedStream:
    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._queues: list[deque[Stems]] = []

    def add_reader(self) -> _SharedStreamReader:
        queue: deque[Stems] = deque()
        self._queues.append(queue)
        return _SharedStreamReader(self, queue)

    def take(self, queue: deque[Stems], run: Callable[[], Stems]) -> Stems:
        """Returns a reader's next stems; the first reader to push a part runs the model for all."""
        if not queue:
            stems = run()
            for waiting in self._queues:
                waiting.append(stems)
        return queue.popleft()


class _SharedStreamReader:
    """One effect's view of a shared stream."""

    def __init__(self, shared: _SharedStream, queue: deque[Stems]) -> None:
        self._shared = shared
        self._queue = queue

    @property
    def latency_samples(self) -> int:
        latency: int = self._shared.stream.latency_samples
        return latency

    def push(self, audio: Audio) -> Stems:
        return self._shared.take(self._queue, lambda: self._shared.stream.push(audio))

    def flush(self) -> Stems:
        return self._shared.take(self._queue, self._shared.stream.flush)
