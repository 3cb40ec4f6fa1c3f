"""On a card a checkpoint runs in the graph that takes audio, so only audio crosses the bus."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bsmamba2.audio import fourier, stft
from bsmamba2.audio.array import Audio
from bsmamba2.audio.snr import snr_db
from bsmamba2.devices.device import Device
from bsmamba2.engines.ort_engine import OrtEngine
from bsmamba2.models import model as models
from bsmamba2_network import BSMamba2


def audio(samples: int = 44100) -> Audio:
    return np.random.default_rng(0).uniform(-0.5, 0.5, (2, samples)).astype(np.float32)


@pytest.fixture
def on_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes ``open_engine`` return the model and the device that it would open on a card."""
    monkeypatch.setattr(models, "choose", lambda *_: Device("cuda", 0))
    monkeypatch.setattr(models, "_whole_engine", lambda loaded, device: (loaded, device))


@pytest.mark.parametrize(("n_fft", "hop"), [(2048, 441), (4096, 1024), (64, 10), (64, 16)])
def test_a_frame_times_the_matrix_is_its_spectrum(n_fft: int, hop: int) -> None:
    matrix = fourier.matrices(n_fft, hop)[fourier.ANALYSIS]
    frame = audio(n_fft)[0]
    expected = stft.stft(frame, n_fft, n_fft // 2)[1]
    padded = np.pad(frame, (0, len(matrix) - n_fft))
    assert snr_db(expected, (padded @ matrix).reshape(-1, 2)) > 110


@pytest.mark.usefixtures("on_card")
def test_on_a_card_a_checkpoint_takes_audio() -> None:
    opened: Any = models.open_engine(None, "auto", verify=False)
    loaded, device = opened
    assert (loaded.manifest.io, device) == ("waveform", "cuda:0")


@pytest.mark.usefixtures("on_card")
def test_on_a_card_a_checkpoint_with_another_hop_takes_spectra(tmp_path: Path) -> None:
    net = BSMamba2(replace(BSMamba2.untrained("tiny").config, hop=500))
    net.save(tmp_path / "other.safetensors")
    opened: Any = models.open_engine(tmp_path / "other.safetensors", "auto", verify=False)
    loaded, _ = opened
    assert (loaded.manifest.io, loaded.manifest.hop) == ("spectrum", 500)


@pytest.mark.parametrize("samples", [1, 2048, 44100])
def test_the_graph_of_audio_equals_the_graph_of_spectra_between_transforms(samples: int) -> None:
    loaded = (models._load(None, io=io) for io in ("spectrum", "waveform"))
    spectra, waves = (OrtEngine(m.file, "cpu", m.weights, m.manifest) for m in loaded)
    chunk = audio(samples)
    assert snr_db(spectra.run(chunk), waves.run(chunk)) > 90
