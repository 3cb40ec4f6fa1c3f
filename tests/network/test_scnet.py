"""SCNet agrees with the code of Music-Source-Separation-Training (MSST)."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from ml_collections import ConfigDict
from torch import Tensor

from bsmamba2 import ModelError
from bsmamba2_network.scnet import SCNet, fourier_matrices
from bsmamba2_network.scnet_config import SCNETS, SCNetConfig
from support.msst_reference import snr_db
from support.reference_networks import published_scnet, randomised

pytestmark = pytest.mark.filterwarnings("ignore:A window was not provided:UserWarning")

MICRO = SCNetConfig(n_fft=256, hop=64, widths=(4, 8), dual_paths=2, chunk=1024)
PARAMETERS = {
    "scnet_small": 10_578_768,
    "scnet_large": 42_181_232,
    "scnet_xl": 54_006_896,
    "scnet_xl_ihf": 53_466_800,
}


def noise(samples: int, batch: int = 1) -> Tensor:
    return torch.randn(batch, 2, samples, generator=torch.Generator().manual_seed(1))


def pair(config: SCNetConfig) -> tuple[SCNet, Any]:
    """Returns our network and MSST's with the same random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        ours, theirs = SCNet(config).eval(), published_scnet(config).eval()
    randomised(ours)
    assert not any(theirs.load_state_dict(ours.state_dict(), strict=True))
    return ours, theirs


@pytest.mark.parametrize("name", SCNETS)
def test_the_published_sizes_have_the_published_keys_shapes_and_counts(name: str) -> None:
    with torch.device("meta"):
        ours, theirs = SCNet(SCNETS[name]), published_scnet(SCNETS[name])
    shapes = {key: value.shape for key, value in theirs.state_dict().items()}
    assert {key: value.shape for key, value in ours.state_dict().items()} == shapes
    assert sum(value.numel() for value in ours.parameters()) == PARAMETERS[name]


def test_weights_load_strictly_from_the_original() -> None:
    ours, theirs = SCNet(MICRO), published_scnet(MICRO)
    assert not any(ours.load_state_dict(theirs.state_dict(), strict=True))


@pytest.mark.parametrize("name", SCNETS)
@torch.inference_mode()
def test_waveforms_agree_with_the_original_to_100_db(name: str) -> None:
    config = dataclasses.replace(SCNETS[name], widths=(8, 12, 16), dual_paths=2)
    ours, theirs = pair(config)
    for samples in (11264, 12288, 12000):
        waveform = noise(samples, batch=2)
        assert snr_db(theirs(waveform), ours(waveform)) >= 100, samples


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name != "scnet_small")) for name in SCNETS],
)
@torch.inference_mode()
def test_waveforms_of_the_published_sizes_agree_to_100_db(name: str) -> None:
    ours, theirs = pair(SCNETS[name])
    waveform = noise(8000)
    assert snr_db(theirs(waveform), ours(waveform)) >= 100


@torch.inference_mode()
def test_another_division_into_bands_is_another_network() -> None:
    ours, theirs = pair(MICRO)
    other = SCNet(dataclasses.replace(MICRO, band_fractions=(0.25, 0.35, 0.4))).eval()
    other.load_state_dict(ours.state_dict())
    waveform = noise(1024)
    assert snr_db(theirs(waveform), other(waveform)) < 40


@pytest.mark.parametrize("num_overlap", [2, 4])
def test_chunks_separated_by_msst_agree_with_the_original_to_80_db(num_overlap: int) -> None:
    ours, theirs = pair(MICRO)
    demix = importlib.import_module("msst.utils.model_utils").demix
    settings: dict[str, Any] = {"inference": {"num_overlap": num_overlap, "batch_size": 1}}
    settings |= {"audio": {"chunk_size": MICRO.chunk}, "training": {"use_amp": False}}
    settings["training"]["instruments"] = list(MICRO.stems)
    song = noise(5000)[0].numpy()
    expected = demix(ConfigDict(settings), theirs, song, "cpu", "scnet")
    actual = demix(ConfigDict(settings), ours, song, "cpu", "scnet")
    for stem in MICRO.stems:
        assert snr_db(torch.from_numpy(expected[stem]), torch.from_numpy(actual[stem])) >= 80


@pytest.mark.parametrize("frames", [2, 12, 476])
def test_the_matrices_are_the_orthonormal_fourier_transform(frames: int) -> None:
    signal = torch.randn(3, frames, generator=torch.Generator().manual_seed(2))
    cosine, sine = fourier_matrices(frames, signal)
    expected = torch.fft.rfft(signal.double(), norm="ortho")
    assert (
        snr_db(torch.view_as_real(expected), torch.stack([signal @ cosine, signal @ sine], -1))
        > 115
    )


def test_saved_weights_load_again_with_their_sizes(tmp_path: Path) -> None:
    net = SCNet(MICRO).eval()
    net.save(tmp_path / "net.safetensors")
    again = SCNet.load(tmp_path / "net.safetensors")
    assert again.config == MICRO
    assert torch.equal(net(noise(1000)), again(noise(1000)))


def test_an_unknown_size_is_an_error_that_lists_the_known() -> None:
    with pytest.raises(ModelError, match="scnet_small, scnet_large, scnet_xl, scnet_xl_ihf"):
        SCNet.untrained("scnet_huge")
