"""A network that trains in seconds, and data sets of tones and noise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from bsmamba2.audio.array import Audio
from bsmamba2_network import PRESETS, Config

RATE = 44100
MICRO = Config(
    n_fft=256, hop=64, bands=(5, 12, 112), dim=16, depth=1, head_dim=16, state_size=8, chunk=RATE
)  # fmt: skip


@pytest.fixture(autouse=True)
def micro(monkeypatch: pytest.MonkeyPatch) -> Config:
    """Adds the preset ``micro`` for every test of this folder."""
    monkeypatch.setitem(PRESETS, "micro", MICRO)
    return MICRO


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Limits torch to one thread: for networks this small, two threads mostly wait."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tone() -> Callable[[float, float], Audio]:
    """``tone(hz, seconds)``: a sine in one channel, at a tenth of full scale."""

    def make(hz: float, seconds: float) -> Audio:
        t = np.arange(int(RATE * seconds)) / RATE
        return (0.1 * np.sin(2 * np.pi * hz * t)).astype(np.float32)

    return make


@pytest.fixture(scope="session")
def hiss() -> Callable[..., Audio]:
    """``hiss(seconds, channels)``: noise at a tenth of full scale, (channels, samples)."""

    def make(seconds: float, channels: int = 1, seed: int = 0) -> Audio:
        random = np.random.default_rng(seed)
        noise = 0.1 * random.standard_normal((channels, int(RATE * seconds)))
        return noise.astype(np.float32)

    return make


@pytest.fixture(scope="session")
def pooled(
    tmp_path_factory: pytest.TempPathFactory,
    tone: Callable[[float, float], Audio],
    hiss: Callable[..., Audio],
) -> Path:
    """A data set with the layout of ``bsmamba2 dataset``: a tone as voice, noise as music."""
    folder = tmp_path_factory.mktemp("pooled")
    for name, audio in (("vocals/a.wav", tone(440, 4)), ("instrumental/b.wav", hiss(4, 2).T)):
        (folder / "train" / name).parent.mkdir(parents=True)
        soundfile.write(folder / "train" / name, audio, RATE, "PCM_16")
    for split in ("valid", "test"):
        write_song(folder / split / "song", tone(330, 3), hiss(3, 2))
    return folder


def write_song(folder: Path, voice: Audio, music: Audio) -> None:
    """Writes vocals, instrumental and their sum; the voice is silent in the second third."""
    folder.mkdir(parents=True)
    vocals = np.repeat(voice[np.newaxis], 2, axis=0)
    third = vocals.shape[1] // 3
    vocals[:, third : 2 * third] = 0
    for name, audio in (
        ("vocals", vocals),
        ("instrumental", music),
        ("mixture", vocals + music),
    ):
        soundfile.write(folder / f"{name}.wav", audio.T, RATE, "FLOAT")
