"""Engines that stand in for a network: tiny chunks, no memory, known physics.

The engine under test elsewhere is an ONNX Runtime session; nothing here imports one.
"""

from __future__ import annotations

import zlib
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from hypothesis import settings

from bsmamba2 import Manifest

# A busy machine is slow, not wrong.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


class StubEngine:
    """Runs a plain function on each chunk and counts the runs."""

    device = "cpu"

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


@pytest.fixture(scope="session")
def stub():
    """``stub.identity(channels=1, chunk=64)`` and so on: makes the engines above."""

    def maker(separate, **fixed):
        return lambda **changes: StubEngine(separate, **(fixed | changes))

    kinds = (identity, half, lower_half_band, restless)
    makers = {kind.__name__: maker(kind) for kind in kinds}
    two = maker(left_and_right, stems=("left", "right"), residual=None)
    return SimpleNamespace(**makers, left_and_right=two, of=StubEngine)


@pytest.fixture(scope="session")
def noise():
    """``noise(channels, samples)``: float32 within ±1, the same every time."""

    def make(channels, samples, seed=0):
        random = np.random.default_rng(seed)
        return random.uniform(-1, 1, (channels, samples)).astype(np.float32)

    return make


@pytest.fixture
def song(tmp_path, noise):
    """``song("song.wav", "PCM_16")``: the path of a second of stereo noise at a tenth of scale."""

    def write(name="song.wav", subtype=None, channels=2, rate=44100, samples=None, gain=0.1):
        path = tmp_path / name
        frames = gain * noise(channels, rate if samples is None else samples).T
        soundfile.write(path, frames, rate, subtype)
        return path

    return write
