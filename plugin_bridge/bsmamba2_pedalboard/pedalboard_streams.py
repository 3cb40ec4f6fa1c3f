"""Streams through Pedalboard's native plugins, with workarounds for its faults in streaming."""

from __future__ import annotations

import numpy as np
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
from bsmamba2.audio.array import Audio
from bsmamba2.audio.fifo import Fifo
from bsmamba2_pedalboard.errors import ArgumentValueError

FIXED_BLOCK = 512
"""Block size, in samples, of plugins that need blocks of one size; it adds 511 samples of delay."""

MAX_TAIL_SECONDS = 60
"""Silence fed to native plugins at the end of a signal before a missing rest is an error."""

NEEDS_FIXED_BLOCKS = (ExternalPlugin, MP3Compressor, Resample)
CANNOT_STREAM = (PitchShift, GSMFullRateCompressor)


class WholeNativeStream:
    """Native plugins that process a whole signal in one call, which compensates their latency."""

    def __init__(self, plugins: list[Plugin], rate: float, channels: int, size: int) -> None:
        self._chain = chain_of(plugins, rate, channels)
        self._rate = rate
        self._size = size
        self._parts = [np.zeros((channels, 0), np.float32)]
        self.latency_samples = 0

    def push(self, audio: Audio) -> Audio:
        self.latency_samples += audio.shape[1]
        self._parts.append(audio)
        return self._parts[0]

    def flush(self) -> Audio:
        audio = np.concatenate(self._parts, axis=1) if len(self._parts) > 2 else self._parts[-1]
        if not audio.size:
            return audio
        return self._chain.process(audio, self._rate, self._size, reset=True)


class NativeStream:
    """Native plugins that process a signal in parts. It works around two faults of Pedalboard.

    - A block larger than all before it restarts the plugins in the middle of the signal. Therefore
      they process one block of the largest size first, and are then reset. Plugins that do not
      remember that size, or whose output depends on their block sizes, get blocks of one size,
      which delays the signal by ``FIXED_BLOCK - 1`` samples.
    - Pedalboard does not flush plugins. Therefore they are fed silence until as much has come out
      as went in.
    """

    def __init__(self, plugins: list[Plugin], rate: float, channels: int, size: int) -> None:
        for plugin in plugins:
            if isinstance(plugin, CANNOT_STREAM):
                raise ArgumentValueError(
                    f"reset must be True with {plugin!r}, which Pedalboard cannot run on a signal "
                    "in parts; got False: give the whole signal in one call"
                )
        fixed = any(isinstance(plugin, NEEDS_FIXED_BLOCKS) for plugin in plugins)
        self._size = min(size, FIXED_BLOCK) if fixed else size
        self._quantum = self._size if fixed else 1
        self._rate = rate
        self._chain = chain_of(plugins, rate, channels)
        if not fixed:
            self._process(np.zeros((channels, size), np.float32))
        self._chain.reset()
        self._process(np.empty((channels, 0), np.float32))  # the reset forgot the layout
        self._waiting = Fifo(channels, np.float32)
        self._missing = self.latency_samples = 0

    def push(self, audio: Audio) -> Audio:
        output = self._advance(audio)
        self.latency_samples = max(self.latency_samples, self._missing)
        return output

    def _advance(self, audio: Audio) -> Audio:
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
            if fed > MAX_TAIL_SECONDS * self._rate:
                raise AudioError(
                    f"native plugins must return every sample within {MAX_TAIL_SECONDS} s of "
                    f"silence; {self._missing} samples are missing: give the whole signal in one "
                    "call, with reset=True"
                )
            # Completes the block that the pushes before it left incomplete.
            fill = self._size - len(self._waiting) % self._quantum
            parts.append(self._advance(silence[:, :fill]))
            self._missing -= fill
            fed += fill
        return np.concatenate(parts, axis=1)[:, :missing]

    def _process(self, audio: Audio) -> Audio:
        return self._chain.process(audio, self._rate, self._size, reset=False)


def chain_of(plugins: list[Plugin], rate: float, channels: int) -> Chain:
    """Puts the plugins into a native chain that reads every array as (channels, samples)."""
    # By default Pedalboard rejects two samples of stereo, and reads one as two samples of mono. A
    # chain that has processed (channels, 0) knows the layout. It processes that array before the
    # plugins are added, so that they do not see it.
    chain = Chain([])
    chain.process(np.empty((channels, 0), np.float32), rate)
    for plugin in plugins:
        chain.append(plugin)
    return chain
