"""Streams: one signal on its way through effects.

A stream takes (channels, n) samples and returns (channels, m). After ``flush`` as many samples have
come out as went in, in the same order. The output does not depend on how the input is split.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from bsmamba2 import AudioError
from bsmamba2.audio.array import Audio, to_float32
from bsmamba2.audio.fifo import Fifo


class EffectStream(Protocol):
    """One signal on its way through an effect."""

    @property
    def latency_samples(self) -> int:
        """The most samples that have gone in and not come out.

        Native plugins and other processors do not report it: for them it is the most so far.
        """
        ...

    def push(self, audio: Audio) -> Audio:
        """Takes (channels, n), returns (channels, m)."""
        ...

    def flush(self) -> Audio:
        """Ends the signal; returns the samples that have not come out yet."""
        ...


class Processor(Protocol):
    """Any object with Pedalboard's ``process``; it receives (channels, samples) float32.

    In a stream it is called with ``reset=False``, and its ``flush()``, if it has one, at the end.
    """

    def process(
        self,
        input_array: npt.NDArray[Any],
        sample_rate: float,
        buffer_size: int = 8192,
        reset: bool = True,
    ) -> npt.NDArray[Any]: ...


class SeriesStream:
    """Streams one after the other; if there are none, the input passes unchanged."""

    def __init__(self, streams: Sequence[EffectStream], channels: int) -> None:
        self._streams = streams
        self._channels = channels

    @property
    def latency_samples(self) -> int:
        return sum(stream.latency_samples for stream in self._streams)

    def push(self, audio: Audio) -> Audio:
        for stream in self._streams:
            audio = stream.push(audio)
        return audio

    def flush(self) -> Audio:
        rest = np.zeros((self._channels, 0), np.float32)
        for stream in self._streams:
            pushed = [stream.push(rest)] if rest.size else []
            rest = np.concatenate([*pushed, stream.flush()], axis=1)
        return rest


class ParallelStream:
    """The sum of streams with the same input, aligned to the latest one; silence if none."""

    def __init__(self, streams: Sequence[EffectStream], channels: int) -> None:
        self._streams = streams
        self._waiting = [Fifo(channels, np.float32) for _ in streams]
        self._channels = channels

    @property
    def latency_samples(self) -> int:
        return max((stream.latency_samples for stream in self._streams), default=0)

    def push(self, audio: Audio) -> Audio:
        if not self._streams:
            return np.zeros_like(audio)
        return self._sum([stream.push(audio) for stream in self._streams])

    def flush(self) -> Audio:
        if not self._streams:
            return np.zeros((self._channels, 0), np.float32)
        return self._sum([stream.flush() for stream in self._streams])

    def _sum(self, outputs: Sequence[Audio]) -> Audio:
        for waiting, output in zip(self._waiting, outputs, strict=True):
            waiting.append(output)
        ready = min(map(len, self._waiting))
        total = np.zeros((self._channels, ready), np.float32)
        for waiting in self._waiting:
            total += waiting.take(ready)
        return total


class ProcessorStream:
    """A stream through any :class:`Processor`."""

    def __init__(self, processor: Processor, rate: float, size: int, whole: bool) -> None:
        self._processor = processor
        self._arguments = (rate, size)
        self._whole = whole
        self.latency_samples = self._received = self._emitted = 0
        self._channels = 1
        if not whole and hasattr(processor, "reset"):
            processor.reset()

    def push(self, audio: Audio) -> Audio:
        self._channels = len(audio)
        if not audio.size:
            return audio
        # A copy, because the processor may write to its input, which may be the caller's array.
        output = self._processor.process(audio.copy(), *self._arguments, self._whole)
        return self._checked(output, audio.shape[1])

    def flush(self) -> Audio:
        finished = self._whole or self._received == self._emitted
        if finished or not hasattr(self._processor, "flush"):
            return np.zeros((self._channels, 0), np.float32)
        return self._checked(self._processor.flush(), 0)

    def _checked(self, output: npt.ArrayLike, received: int) -> Audio:
        array = np.asarray(output)
        self._received += received
        fits = array.ndim == 2 and len(array) == self._channels
        if not fits or (self._whole and array.shape[1] != received):
            raise AudioError(
                f"{self._processor!r} must return an array of its input's shape, "
                f"{(self._channels, received)}; got {array.shape}: pad or cut its output to the "
                "length of its input"
            )
        self._emitted += array.shape[1]
        self.latency_samples = max(self.latency_samples, self._received - self._emitted)
        return to_float32(array)
