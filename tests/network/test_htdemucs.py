"""HT Demucs agrees with the package demucs."""

from __future__ import annotations

import dataclasses
import importlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from ml_collections import ConfigDict
from safetensors.torch import save_file
from torch import Tensor

from bsmamba2 import ModelError
from bsmamba2.formats.demucs_package import metadata_of
from bsmamba2_network.htdemucs import HTDemucs
from bsmamba2_network.htdemucs_config import HTDEMUCS, HTDemucsConfig
from support.msst_reference import snr_db
from support.reference_networks import published_htdemucs, published_options, randomised

MICRO = HTDemucsConfig(n_fft=128, width=8, depth=2, bottom=24, layers=3, chunk=2000)
PARAMETERS = {
    "htdemucs": 41_984_456,
    "htdemucs_6s": 27_414_996,
    "htdemucs_vocals": 41_979_836,
}


def noise(samples: int, batch: int = 1) -> Tensor:
    return torch.randn(batch, 2, samples, generator=torch.Generator().manual_seed(1))


def pair(config: HTDemucsConfig) -> tuple[HTDemucs, Any]:
    """Returns our network and demucs' with the same random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        ours, theirs = HTDemucs(config).eval(), published_htdemucs(config).eval()
    randomised(ours)
    assert not any(theirs.load_state_dict(ours.state_dict(), strict=True))
    return ours, theirs


@pytest.mark.parametrize("name", HTDEMUCS)
def test_the_published_sizes_have_the_published_keys_shapes_and_counts(name: str) -> None:
    with torch.device("meta"):
        ours = HTDemucs(HTDEMUCS[name])
    theirs = published_htdemucs(HTDEMUCS[name])
    shapes = {key: value.shape for key, value in theirs.state_dict().items()}
    assert {key: value.shape for key, value in ours.state_dict().items()} == shapes
    assert sum(value.numel() for value in ours.parameters()) == PARAMETERS[name]


def test_weights_load_strictly_from_the_original() -> None:
    ours, theirs = HTDemucs(MICRO), published_htdemucs(MICRO)
    assert not any(ours.load_state_dict(theirs.state_dict(), strict=True))


@pytest.mark.parametrize("name", HTDEMUCS)
@torch.inference_mode()
def test_waveforms_agree_with_the_original_to_100_db(name: str) -> None:
    published = HTDEMUCS[name]
    sizes = {field: getattr(MICRO, field) for field in ("n_fft", "width", "depth", "chunk")}
    config = dataclasses.replace(published, bottom=published.bottom // 16, **sizes)
    ours, theirs = pair(config)
    for samples in (2000, 1500, 1):
        waveform = noise(samples, batch=2)
        assert snr_db(theirs(waveform), ours(waveform)) >= 100, samples


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name != "htdemucs")) for name in HTDEMUCS],
)
@torch.inference_mode()
def test_waveforms_of_the_published_sizes_agree_to_100_db(name: str) -> None:
    ours, theirs = pair(dataclasses.replace(HTDEMUCS[name], chunk=44100))
    waveform = noise(44100)
    assert snr_db(theirs(waveform), ours(waveform)) >= 100


@pytest.mark.slow
@torch.inference_mode()
def test_whole_segments_agree_with_the_original_to_100_db() -> None:
    ours, theirs = pair(HTDEMUCS["htdemucs"])
    waveform = noise(ours.config.chunk)
    assert snr_db(theirs(waveform), ours(waveform)) >= 100


@torch.inference_mode()
def test_silence_is_separated_into_what_the_original_makes_of_it() -> None:
    ours, theirs = pair(MICRO)
    silence = torch.zeros(1, 2, MICRO.chunk)
    assert torch.allclose(ours(silence), theirs(silence), atol=1e-6)


def test_chunks_separated_by_demucs_agree_with_the_original_to_80_db() -> None:
    ours, theirs = pair(MICRO)
    apply_model = importlib.import_module("demucs.apply").apply_model
    song = noise(7000)
    expected = apply_model(theirs, song, shifts=0, overlap=0.25)
    theirs.forward = ours.forward
    assert snr_db(expected, apply_model(theirs, song, shifts=0, overlap=0.25)) >= 80


def test_chunks_separated_by_msst_agree_with_the_original_to_80_db() -> None:
    ours, theirs = pair(MICRO)
    demix = importlib.import_module("msst.utils.model_utils").demix
    training: dict[str, Any] = {"samplerate": 44100, "use_amp": False}
    training |= {"segment": MICRO.chunk / 44100}
    training |= {"instruments": list(MICRO.stems)}
    settings = ConfigDict(
        {"training": training, "inference": {"num_overlap": 4, "batch_size": 1, "normalize": False}}
    )
    song = noise(7000)[0].numpy()
    expected = demix(settings, theirs, song, "cpu", "htdemucs")
    actual = demix(settings, ours, song, "cpu", "htdemucs")
    for stem in MICRO.stems:
        assert snr_db(torch.from_numpy(expected[stem]), torch.from_numpy(actual[stem])) >= 80


@torch.inference_mode()
def test_fewer_samples_are_padded_with_zeros() -> None:
    net = randomised(HTDemucs(MICRO))
    padded = torch.nn.functional.pad(noise(1200), (0, 800))
    assert torch.equal(net(noise(1200)), net(padded)[..., :1200])


def test_more_samples_than_a_chunk_are_an_error() -> None:
    with pytest.raises(ModelError, match="at most 2000 samples.*got 2001"):
        HTDemucs(MICRO)(noise(2001))


def test_saved_weights_load_again_with_their_sizes(tmp_path: Path) -> None:
    net = HTDemucs(MICRO).eval()
    net.save(tmp_path / "net.safetensors")
    again = HTDemucs.load(tmp_path / "net.safetensors")
    assert again.config == MICRO
    assert torch.equal(net(noise(1000)), again(noise(1000)))


def test_an_unknown_size_is_an_error_that_lists_the_known() -> None:
    with pytest.raises(ModelError, match="htdemucs, htdemucs_6s, htdemucs_vocals"):
        HTDemucs.untrained("htdemucs_7s")


def package(theirs: Any, config: HTDemucsConfig) -> dict[str, Any]:
    """Returns what Demucs saves as a ``.th`` file."""
    state = {key: value.half() for key, value in theirs.state_dict().items()}
    options = published_options(config) | {"segment": Fraction(2000, 44100)}
    return {"klass": type(theirs), "args": (), "kwargs": options, "state": state}


def test_a_th_file_loads_as_demucs_loads_it(tmp_path: Path) -> None:
    _, theirs = pair(MICRO)
    path = tmp_path / "955717e8.th"
    torch.save(package(theirs, MICRO), path)
    expected = importlib.import_module("demucs.states").load_model(path).eval()
    ours = HTDemucs.load(path)
    assert ours.config == MICRO
    assert snr_db(expected(noise(2000)), ours(noise(2000))) >= 100


def test_a_safetensors_file_loads_as_demucs_loads_it(tmp_path: Path) -> None:
    _, theirs = pair(MICRO)
    path = tmp_path / "955717e8.safetensors"
    metadata = metadata_of(package(theirs, MICRO) | {"klass": "demucs.htdemucs.HTDemucs"}, path)
    save_file(theirs.state_dict(), path, metadata)
    expected = importlib.import_module("demucs.hf").load_safetensors_model(path).eval()
    ours = HTDemucs.load(path)
    assert ours.config == MICRO
    assert snr_db(expected(noise(2000)), ours(noise(2000))) >= 100


def test_options_that_contradict_the_weights_are_an_error(tmp_path: Path) -> None:
    _, theirs = pair(MICRO)
    saved = package(theirs, dataclasses.replace(MICRO, bottom=0))
    torch.save(saved, tmp_path / "955717e8.th")
    with pytest.raises(ModelError, match="bottom is 0 in the config and 24 in the weights"):
        HTDemucs.load(tmp_path / "955717e8.th")
