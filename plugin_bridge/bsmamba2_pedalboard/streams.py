"""Signals on their way through effects: what is pushed in comes out, later, as long as it was.

A stream takes (channels, n) and returns (channels, m); after ``flush`` as many samples have come
out as went in, each in its place. What comes out does not depend on how the input is cut.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt
from pedalboard import (
    Chain,
    ExternalPlugin,
    GSMFullRateCompressor,
    MP3Compressor,
    PitchShift,
    Plugin,
    Resample,
)

from bsmamba2 import AudioError
from bsmamba2.audio.array import Audio, to_float32
from bsmamba2.audio.fifo import Fifo
from bsmamba2_pedalboard.errors import ArgumentValueError

if TYPE_CHECKING:
    from bsmamba2 import stream as separation
    from bsmamba2.stems import Stems
    from bsmamba2_pedalboard.board import Processor

FIXED_BLOCK = 512
"""Samples of the blocks for plugins that must see equal ones; the delay is one less."""

MAX_TAIL = 60
"""Seconds of silence after which a native plugin will not give the rest of a signal."""

NEEDS_FIXED_BLOCKS = (ExternalPlugin, MP3Compressor, Resample)
CANNOT_STREAM = (PitchShift, GSMFullRateCompressor)


class Stream(Protocol):
    """One signal on its way through an effect."""

    def push(self, audio: Audio) -> Audio:
        """Takes (channels, n), returns (channels, m)."""
        ...

    def flush(self) -> Audio:
        """Ends the signal; returns what is still missing."""
        ...


class Series:
    """Streams one after the other; of none the input passes."""

    def __init__(self, streams: Sequence[Stream], channels: int) -> None:
        self._streams = streams
        self._channels = channels

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


class Parallel:
    """The sum of streams of one input, each waiting for the latest; of none, silence."""

    def __init__(self, streams: Sequence[Stream], channels: int) -> None:
        self._streams = streams
        self._waiting = [Fifo(channels, np.float32) for _ in streams]
        self._channels = channels

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


class WholeNative:
    """Native plugins on a whole signal, in one call, which makes up for their latency."""

    def __init__(self, plugins: list[Plugin], rate: float, channels: int, size: int) -> None:
        self._chain = chain_of(plugins, rate, channels)
        self._rate = rate
        self._size = size
        self._parts = [np.zeros((channels, 0), np.float32)]

    def push(self, audio: Audio) -> Audio:
        self._parts.append(audio)
        return self._parts[0]

    def flush(self) -> Audio:
        audio = np.concatenate(self._parts, axis=1) if len(self._parts) > 2 else self._parts[-1]
        if not audio.size:
            return audio
        return self._chain.process(audio, self._rate, self._size, reset=True)


class NativeStream:
    """Native plugins on a signal in parts, past what Pedalboard's own streaming gets wrong.

    - A block larger than any before would start the plugins anew in the middle of the signal. So
      they are shown one of the largest size beforehand, and forget it. Plugins that do not
      remember that size, or whose output hangs on their blocks, get blocks of one size, which
      makes the signal wait for ``FIXED_BLOCK - 1`` samples.
    - Nothing flushes them: they are fed silence until as much has come out as went in.
    """

    def __init__(self, plugins: list[Plugin], rate: float, channels: int, size: int) -> None:
        for plugin in plugins:
            if isinstance(plugin, CANNOT_STREAM):
                raise ArgumentValueError(
                    f"reset must be True with {plugin!r}, which Pedalboard cannot run on a signal "
                    "in parts: give the whole signal in one call"
                )
        fixed = any(isinstance(plugin, NEEDS_FIXED_BLOCKS) for plugin in plugins)
        self._size = min(size, FIXED_BLOCK) if fixed else size
        self._quantum = self._size if fixed else 1
        self._rate = rate
        self._chain = chain_of(plugins, rate, channels)
        if not fixed:
            self._process(np.zeros((channels, size), np.float32))
        self._chain.reset()
        self._process(np.empty((channels, 0), np.float32))  # which the reset forgot: the layout
        self._waiting = Fifo(channels, np.float32)
        self._missing = 0

    def push(self, audio: Audio) -> Audio:
        self._missing += audio.shape[1]
        self._waiting.append(audio)
        ready = len(self._waiting) // self._quantum * self._quantum
        output = self._process(self._waiting.take(ready))
        self._missing -= output.shape[1]
        return output

    def flush(self) -> Audio:
        channels = len(self._waiting.peek(0, 0))
        parts = [np.zeros((channels, 0), np.float32)]
        silence = np.zeros((channels, self._size), np.float32)
        missing, fed = self._missing, 0
        while self._missing > 0:
            if fed > MAX_TAIL * self._rate:
                raise AudioError(
                    f"the native plugins keep {self._missing} samples back after {MAX_TAIL} s of "
                    "silence: give the whole signal in one call, with reset=True"
                )
            # The pushes before made whole blocks, so this one is filled up by as much as it lacks.
            fill = self._size - len(self._waiting) % self._quantum
            parts.append(self.push(silence[:, :fill]))
            self._missing -= fill
            fed += fill
        return np.concatenate(parts, axis=1)[:, :missing]

    def _process(self, audio: Audio) -> Audio:
        return self._chain.process(audio, self._rate, self._size, reset=False)


class Foreign:
    """Anybody's effect, by its ``process``; ``flush`` is called where it has one."""

    def __init__(self, processor: Processor, rate: float, size: int, whole: bool) -> None:
        self._processor = processor
        self._arguments = (rate, size)
        self._whole = whole
        self._came = self._went = 0
        self._channels = 1
        if not whole and hasattr(processor, "reset"):
            processor.reset()

    def push(self, audio: Audio) -> Audio:
        self._channels = len(audio)
        if not audio.size:
            return audio
        # A copy, since nothing keeps a stranger from writing to what may be the caller's array.
        output = self._processor.process(audio.copy(), *self._arguments, self._whole)
        return self._checked(output, audio.shape[1])

    def flush(self) -> Audio:
        if self._whole or self._came == self._went or not hasattr(self._processor, "flush"):
            return np.zeros((self._channels, 0), np.float32)
        return self._checked(self._processor.flush(), 0)

    def _checked(self, output: npt.ArrayLike, came: int) -> Audio:
        array = np.asarray(output)
        self._came += came
        fits = array.ndim == 2 and len(array) == self._channels
        if not fits or (self._whole and array.shape[1] != came):
            raise AudioError(
                f"{self._processor!r} must return the shape that it is given; "
                f"{(self._channels, came)} went in, {array.shape} came: pad or cut its output to "
                "the length of its input"
            )
        self._went += array.shape[1]
        return to_float32(array)


class SharedRuns:
    """The separations of one input: effects that ask for the same one share its runs."""

    def __init__(self) -> None:
        self._runs: dict[Hashable, _SharedRun] = {}

    def tap(self, key: Hashable, open_stream: Callable[[], separation.Stream]) -> Tap:
        """A stream of all stems that runs once for all taps of the same key.

        All of them must be given the same pushes.
        """
        if key not in self._runs:
            self._runs[key] = _SharedRun(open_stream())
        return self._runs[key].tap()


class _SharedRun:
    def __init__(self, stream: separation.Stream) -> None:
        self.stream = stream
        self._waiting: list[deque[Stems]] = []

    def tap(self) -> Tap:
        self._waiting.append(deque())
        return Tap(self, len(self._waiting) - 1)

    def take(self, tap: int, run: Callable[[], Stems]) -> Stems:
        if not self._waiting[tap]:  # the first of the taps to ask
            stems = run()
            for waiting in self._waiting:
                waiting.append(stems)
        return self._waiting[tap].popleft()


class Tap:
    """One effect's end of a shared run."""

    def __init__(self, run: _SharedRun, place: int) -> None:
        self._run = run
        self._place = place

    def push(self, audio: Audio) -> Stems:
        return self._run.take(self._place, lambda: self._run.stream.push(audio))

    def flush(self) -> Stems:
        return self._run.take(self._place, self._run.stream.flush)


def chain_of(plugins: list[Plugin], rate: float, channels: int) -> Chain:
    """The plugins in a native chain that reads every array as (channels, samples)."""
    # Pedalboard would read two samples of stereo as an error, and one as two of mono. A chain that
    # has seen (channels, 0) knows better; it sees that while it is empty, so nothing else does.
    chain = Chain([])
    chain.process(np.empty((channels, 0), np.float32), rate)
    for plugin in plugins:
        chain.append(plugin)
    return chain
