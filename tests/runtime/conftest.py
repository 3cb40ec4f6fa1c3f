"""Stub engines by name, and songs to put through them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from support.engines import (
    StubEngine,
    StubStepper,
    half,
    identity,
    left_and_right,
    lower_half_band,
    passing,
    restless,
    wandering,
)


@pytest.fixture(scope="session")
def stub():
    """``stub.identity(channels=1, chunk=64)`` and so on: makes the engines above."""

    def maker(separate, kind=StubEngine, **fixed):
        return lambda **changes: kind(separate, **(fixed | changes))

    kinds = (identity, half, lower_half_band, restless)
    makers = {kind.__name__: maker(kind) for kind in kinds}
    makers |= {kind.__name__: maker(kind, StubStepper) for kind in (passing, wandering)}
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
