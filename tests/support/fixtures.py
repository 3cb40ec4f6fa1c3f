"""Types of the fixtures that several folders of tests share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from bsmamba2.audio.array import Audio


class Noise(Protocol):
    """``noise(channels, samples)``: float32 within ±1, the same every time."""

    def __call__(self, channels: int, samples: int, seed: int = 0) -> Audio: ...


class WriteSong(Protocol):
    """``song("song.wav", "PCM_16")``: writes noise, by default a second of stereo; its path."""

    def __call__(
        self,
        name: str = "song.wav",
        subtype: str | None = None,
        channels: int = 2,
        rate: int = 44100,
        samples: int | None = None,
        gain: float = 0.1,
    ) -> Path: ...


WriteOnnx = Callable[[bytes], Path]
"""``write_onnx(content)``: writes ``model.onnx`` with this content; its path."""
