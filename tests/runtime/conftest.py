"""Stub engines by name, and songs to separate with them."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile

from bsmamba2.audio.array import Audio
from support.engines import Stubs
from support.fixtures import Noise, WriteOnnx, WriteSong

# PyTorch writes the files that these read; the wheel is tested without it.
collect_ignore = (
    [] if find_spec("torch") else ["formats/test_checkpoint.py", "formats/test_pickle_reader.py"]
)


@pytest.fixture(scope="session")
def stub() -> Stubs:
    """``stub.identity(channels=1, chunk=64)`` and so on: makes stub engines."""
    return Stubs()


@pytest.fixture(scope="session")
def noise() -> Noise:
    """``noise(channels, samples)``: float32 within ±1, the same every time."""

    def make(channels: int, samples: int, seed: int = 0) -> Audio:
        random = np.random.default_rng(seed)
        return random.uniform(-1, 1, (channels, samples)).astype(np.float32)

    return make


@pytest.fixture
def song(tmp_path: Path, noise: Noise) -> WriteSong:
    """``song("song.wav", "PCM_16")``: the path of a second of stereo noise at a tenth of scale."""

    def write(
        name: str = "song.wav",
        subtype: str | None = None,
        channels: int = 2,
        rate: int = 44100,
        samples: int | None = None,
        gain: float = 0.1,
    ) -> Path:
        path = tmp_path / name
        frames = gain * noise(channels, rate if samples is None else samples).T
        soundfile.write(path, frames, rate, subtype)
        return path

    return write


@pytest.fixture
def write_onnx(tmp_path: Path) -> WriteOnnx:
    """``write_onnx(content)``: the path of ``model.onnx`` with this content."""

    def write(content: bytes) -> Path:
        path = tmp_path / "model.onnx"
        path.write_bytes(content)
        return path

    return write
