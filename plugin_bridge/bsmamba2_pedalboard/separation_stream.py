"""One signal through a separation effect."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bsmamba2 import Stems
from bsmamba2.audio.array import Audio, require_finite
from bsmamba2.audio.fifo import Fifo
from bsmamba2_pedalboard.settings import EffectSettings
from bsmamba2_pedalboard.shared_separations import StemStream

MAX_PUSH = 1 << 15
"""Samples processed together; longer arrays overflow the processor's caches and take 3× as long."""


class SeparationStream:
    """Mixes one stem of a signal with the signal; the output has a constant latency.

    Args:
        separation: separates the signal.
        settings: returns the effect's current settings.
        sample_rate: Hz.
        channels: number of channels in every push.
    """

    def __init__(
        self,
        separation: StemStream,
        settings: Callable[[], EffectSettings],
        sample_rate: float,
        channels: int,
    ) -> None:
        self.latency_samples = separation.latency_samples
        self._separation = separation
        self._settings = settings
        self._rate = sample_rate
        self._received = 0
        self._dry = Fifo(channels, np.float32)
        self._unseparated = Fifo(channels, np.float32)
        self._ready = Fifo(channels, np.float32)
        self._before_output = self.latency_samples

    def push(self, audio: Audio) -> Audio:
        # All of it is checked before any of it is processed.
        require_finite(audio, self._rate, self._received)
        if audio.shape[1] <= MAX_PUSH:
            return self._push(audio)
        starts = range(0, audio.shape[1], MAX_PUSH)
        parts = (self._push(audio[:, start : start + MAX_PUSH]) for start in starts)
        return np.concatenate(list(parts), axis=1)

    def _push(self, audio: Audio) -> Audio:
        self._received += audio.shape[1]
        self._dry.append(audio)
        self._unseparated.append(audio)
        due = audio.shape[1] - self._before_output
        self._before_output = max(0, -due)
        # A host's block is much shorter than a chunk, so most blocks do not call the separation.
        if due > len(self._ready):
            self._advance()
        return self._ready.take(max(0, due))

    def flush(self) -> Audio:
        self._advance()
        self._mix(self._separation.flush())
        return self._ready.take(len(self._ready))

    def _advance(self) -> None:
        self._mix(self._separation.push(self._unseparated.take(len(self._unseparated))))

    def _mix(self, stems: Stems) -> None:
        settings = self._settings()
        stem = stems[settings.stem]
        dry = self._dry.take(stem.shape[1])
        gain = 10 ** (settings.gain_db / 20)
        self._ready.append((1 - settings.mix) * dry + settings.mix * gain * stem)
