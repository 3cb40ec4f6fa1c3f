"""On a card only audio crosses the bus: a checkpoint is poured into the graph of audio."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bsmamba2.audio import fourier, stft
from bsmamba2.audio.snr import snr_db
from bsmamba2.devices.device import Device
from bsmamba2.engines.ort_engine import OrtEngine
from bsmamba2.models import model as models
from bsmamba2_network import BSMamba2


def audio(samples=44100):
    return np.random.default_rng(0).uniform(-0.5, 0.5, (2, samples)).astype(np.float32)


@pytest.fixture
def on_card(monkeypatch):
    """What would be opened there."""
    monkeypatch.setattr(models, "choose", lambda *_: Device("cuda", 0))
    monkeypatch.setattr(models, "_whole_engine", lambda loaded, device: (loaded, device))


@pytest.mark.parametrize(("n_fft", "hop"), [(2048, 441), (4096, 1024), (64, 10), (64, 16)])
def test_a_frame_times_the_matrix_is_its_spectrum(n_fft, hop):
    matrix = fourier.matrices(n_fft, hop)[fourier.ANALYSIS]
    frame = audio(n_fft)[0]
    wanted = stft.stft(frame, n_fft, n_fft // 2)[1]
    padded = np.pad(frame, (0, len(matrix) - n_fft))
    assert snr_db(wanted, (padded @ matrix).reshape(-1, 2)) > 110


def test_there_a_checkpoint_takes_audio(on_card):
    loaded, device = models.open_engine(None, "auto", verify=False)
    assert (loaded.manifest.io, device) == ("waveform", "cuda:0")


def test_there_a_checkpoint_of_another_hop_takes_spectra(on_card, tmp_path):
    net = BSMamba2(replace(BSMamba2.untrained("tiny").config, hop=500))
    net.save(tmp_path / "other.safetensors")
    loaded, _ = models.open_engine(tmp_path / "other.safetensors", "auto", verify=False)
    assert (loaded.manifest.io, loaded.manifest.hop) == ("spectrum", 500)


@pytest.mark.parametrize("samples", [1, 2048, 44100])
def test_the_graph_of_audio_is_the_graph_of_spectra_between_transforms(samples):
    spectra, waves = (models._load(None, io=io) for io in ("spectrum", "waveform"))
    whole, parts = (
        OrtEngine(loaded.file, "cpu", loaded.weights, loaded.manifest)
        for loaded in (waves, spectra)
    )
    chunk = audio(samples)
    assert snr_db(parts.run(chunk), whole.run(chunk)) > 90
