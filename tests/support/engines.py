"""Stub engines that replace a network: tiny chunks, no memory, known outputs.

Other tests run ONNX Runtime sessions; this module does not import ONNX Runtime.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from bsmamba2 import Manifest
from bsmamba2.audio.array import Audio
from bsmamba2.devices.device import CPU, Device, parse
from bsmamba2.engines.protocols import Engine

SIZES: dict[str, Any] = {"name": "stub", "n_fft": 16, "hop": 4, "chunk": 64, "overlap": 0.25}


class StubEngine:
    """Runs a plain function on each chunk and records the lengths of the chunks."""

    device = CPU

    def __init__(self, separate: Callable[[Audio], Any], **changes: Any) -> None:
        self.manifest = Manifest(**(SIZES | changes))
        self.separate = separate
        self.lengths: list[int] = []

    def run(self, chunk: Audio) -> Audio:
        assert chunk.dtype == np.float32
        assert chunk.shape[0] == self.manifest.channels
        self.lengths.append(chunk.shape[1])
        stems: Audio = self.separate(chunk)
        return stems


class Gate:
    """An engine that runs its first chunk when it is told to."""

    def __init__(self) -> None:
        self.entered, self.opened = threading.Event(), threading.Event()
        self.engine = StubEngine(self._separate)

    def _separate(self, chunk: Audio) -> Audio:
        self.entered.set()
        assert self.opened.wait(300)
        return half(chunk)


class StubStepper:
    """Runs a plain function on the frames of each step and on a memory of earlier steps."""

    device = CPU

    def __init__(self, separate: Callable[[int, Audio], tuple[int, Audio]], **changes: Any) -> None:
        self.manifest = Manifest(**(SIZES | changes))
        self.separate = separate
        self.memory = 0

    def reset(self) -> None:
        self.memory = 0

    def step(self, block: Audio, lookahead: Audio) -> tuple[Audio, Audio]:
        frames = np.concatenate([block, lookahead], axis=2)
        self.memory, stems = self.separate(self.memory, frames)
        return stems[:, :, :, : block.shape[2]], stems[:, :, :, block.shape[2] :]


def passing(memory: int, frames: Audio) -> tuple[int, Audio]:
    """One stem: the mixture."""
    return memory, frames[:, np.newaxis]


def wandering(memory: int, frames: Audio) -> tuple[int, Audio]:
    """One stem: the mixture, with a gain that depends on all frames so far."""
    memory = zlib.crc32(frames.tobytes(), memory)
    return memory, np.float32(memory / 2**31 - 1) * frames[:, np.newaxis]


def identity(chunk: Audio) -> Audio:
    """One stem: the mixture."""
    return chunk[np.newaxis].copy()


def half(chunk: Audio) -> Audio:
    """One stem: the mixture, 6 dB down."""
    return np.float32(0.5) * chunk[np.newaxis]


def scaled(gain: float) -> Callable[[Audio], Audio]:
    """One stem: the mixture times the gain."""
    return lambda chunk: np.float32(gain) * chunk[np.newaxis]


def lower_half_band(chunk: Audio) -> Audio:
    """One stem: the band below half the Nyquist frequency, without delay or polarity change."""
    spectrum = np.fft.rfft(chunk)
    spectrum[:, spectrum.shape[1] // 2 :] = 0
    return np.fft.irfft(spectrum, chunk.shape[1])[np.newaxis].astype(np.float32)


def restless(chunk: Audio) -> Audio:
    """One stem, whose gain and offset change with every chunk, to show how chunks are joined."""
    seed = zlib.crc32(chunk.tobytes())
    gain, offset = np.random.default_rng(seed).uniform(-1, 1, (2, 1, 1, 1))
    stem: Audio = (gain * chunk + offset).astype(np.float32)
    return stem


def left_and_right(chunk: Audio) -> Audio:
    """Two stems: the left channel alone and the right channel alone."""
    stems: Audio = chunk * np.eye(2, dtype=np.float32)[:, :, np.newaxis]
    return stems


def centre(chunk: Audio) -> Audio:
    """One stem: what is equal in both channels; a voice on one side alone is lost."""
    return np.where(chunk == chunk[::-1], chunk, 0)[np.newaxis].astype(np.float32)


SIX = ("drums", "bass", "other", "vocals", "guitar", "piano")


def six_shares(chunk: Audio) -> Audio:
    """Six stems: shares of the mixture that do not add up to it."""
    shares = np.array([0.11, 0.07, 0.13, 0.29, 0.17, 0.19], np.float32)
    stems: Audio = shares[:, np.newaxis, np.newaxis] * chunk
    return stems


class Stubs:
    """Makes the engines above: ``stub.identity(channels=1, chunk=64)``."""

    of = StubEngine

    def identity(self, **changes: Any) -> StubEngine:
        return StubEngine(identity, **changes)

    def half(self, **changes: Any) -> StubEngine:
        return StubEngine(half, **changes)

    def scaled(self, gain: float, **changes: Any) -> StubEngine:
        return StubEngine(scaled(gain), **changes)

    def lower_half_band(self, **changes: Any) -> StubEngine:
        return StubEngine(lower_half_band, **changes)

    def restless(self, **changes: Any) -> StubEngine:
        return StubEngine(restless, **changes)

    def left_and_right(self, **changes: Any) -> StubEngine:
        stems = {"stems": ("left", "right"), "residual": None}
        return StubEngine(left_and_right, **(stems | changes))

    def centre(self, **changes: Any) -> StubEngine:
        return StubEngine(centre, **changes)

    def six_shares(self, **changes: Any) -> StubEngine:
        stems = {"stems": SIX, "residual": "residual"}
        return StubEngine(six_shares, **(stems | changes))

    def passing(self, **changes: Any) -> StubStepper:
        return StubStepper(passing, **changes)

    def wandering(self, **changes: Any) -> StubStepper:
        return StubStepper(wandering, **changes)


class StubModel:
    """A model that opens as the given engine on any device."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.manifest = engine.manifest
        self.guesses: tuple[str, ...] = ()

    def choose_device(self, requested: str) -> Device:
        return parse(requested) or CPU

    def chunk_engine(self, device: Device, **_: object) -> Engine:
        return self.engine
