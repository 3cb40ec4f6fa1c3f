"""A network that trains in seconds, and data sets of tones and noise."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch

from bsmamba2_network import PRESETS, Config

RATE = 44100
MICRO = Config(
    n_fft=256, hop=64, bands=(5, 12, 112), dim=16, depth=1, head_dim=16, state_size=8, chunk=RATE
)  # fmt: skip


@pytest.fixture(autouse=True)
def micro(monkeypatch):
    """The preset ``micro``, for every test of this layer."""
    monkeypatch.setitem(PRESETS, "micro", MICRO)
    return MICRO


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """These networks are too small for two, which would wait for each other on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tone():
    """``tone(hz, seconds)``: one channel, a tenth of full scale."""
    return lambda hz, seconds: 0.1 * np.sin(2 * np.pi * hz * np.arange(int(RATE * seconds)) / RATE)


@pytest.fixture(scope="session")
def hiss():
    """``hiss(seconds, channels)``: noise at a tenth of full scale, (channels, samples)."""

    def make(seconds, channels=1, seed=0):
        random = np.random.default_rng(seed)
        return 0.1 * random.standard_normal((channels, int(RATE * seconds)))

    return make


@pytest.fixture(scope="session")
def pooled(tmp_path_factory, tone, hiss):
    """A data set as ``bsmamba2 dataset`` makes them: a tone is the voice, noise the music."""
    folder = tmp_path_factory.mktemp("pooled")
    for name, audio in (("vocals/a.wav", tone(440, 4)), ("instrumental/b.wav", hiss(4, 2).T)):
        (folder / "train" / name).parent.mkdir(parents=True)
        soundfile.write(folder / "train" / name, audio, RATE, "PCM_16")
    for split in ("valid", "test"):
        write_song(folder / split / "song", tone(330, 3), hiss(3, 2))
    return folder


def write_song(folder, voice, music):
    """A song whose voice is silent in its second third; vocals, instrumental and their sum."""
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
