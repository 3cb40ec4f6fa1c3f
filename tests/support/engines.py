"""Engines that stand in for a network: tiny chunks, no memory, known physics.

The engine under test elsewhere is an ONNX Runtime session; nothing here imports one.
"""

from __future__ import annotations

import zlib

import numpy as np

from bsmamba2 import Manifest
from bsmamba2.devices.device import CPU, parse


class StubEngine:
    """Runs a plain function on each chunk and counts the runs."""

    device = CPU

    def __init__(self, separate, **changes):
        sizes = {"name": "stub", "n_fft": 16, "hop": 4, "chunk": 64, "overlap": 0.25}
        self.manifest = Manifest(**(sizes | changes))
        self.separate = separate
        self.lengths = []

    def run(self, chunk):
        assert chunk.dtype == np.float32
        assert chunk.shape[0] == self.manifest.channels
        self.lengths.append(chunk.shape[1])
        return self.separate(chunk)


class StubStepper:
    """Runs a plain function on the frames of each step, and on a memory of the steps before."""

    device = CPU

    def __init__(self, separate, **changes):
        sizes = {"name": "stub", "n_fft": 16, "hop": 4, "chunk": 64, "overlap": 0.25}
        self.manifest = Manifest(**(sizes | changes))
        self.separate = separate
        self.memory = 0

    def reset(self):
        self.memory = 0

    def step(self, block, lookahead):
        frames = np.concatenate([block, lookahead], axis=2)
        self.memory, stems = self.separate(self.memory, frames)
        return stems[:, :, :, : block.shape[2]], stems[:, :, :, block.shape[2] :]


def passing(memory, frames):
    """All of the mixture."""
    return memory, frames[:, np.newaxis]


def wandering(memory, frames):
    """A gain that depends on all frames so far, block and lookahead apart."""
    memory = zlib.crc32(frames.tobytes(), memory)
    return memory, np.float32(memory / 2**31 - 1) * frames[:, np.newaxis]


def identity(chunk):
    """One stem, all of the mixture."""
    return chunk[np.newaxis].copy()


def half(chunk):
    """One stem, 6 dB down."""
    return 0.5 * chunk[np.newaxis]


def lower_half_band(chunk):
    """One stem, what lies below half the Nyquist frequency; no delay, no change of polarity."""
    spectrum = np.fft.rfft(chunk)
    spectrum[:, spectrum.shape[1] // 2 :] = 0
    return np.fft.irfft(spectrum, chunk.shape[1])[np.newaxis].astype(np.float32)


def restless(chunk):
    """One stem, whose gain and offset jump from chunk to chunk: it shows how chunks are joined."""
    seed = zlib.crc32(chunk.tobytes())
    gain, offset = np.random.default_rng(seed).uniform(-1, 1, (2, 1, 1, 1))
    return (gain * chunk + offset).astype(np.float32)


def left_and_right(chunk):
    """Two stems: the left channel alone and the right channel alone."""
    return chunk * np.eye(2, dtype=np.float32)[:, :, np.newaxis]


class StubModel:
    """A model that opens as the given engine on any device."""

    def __init__(self, engine):
        self.engine = engine
        self.manifest = engine.manifest

    def choose_device(self, requested):
        return parse(requested) or CPU

    def chunk_engine(self, device, *, verify=True):
        return self.engine
