"""MSST's yaml tells what the tensors do not, and must not contradict them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from bsmamba2.errors import ModelError
from bsmamba2.formats.model_settings import ModelSettings
from bsmamba2.formats.msst_yaml import settings_from_yaml
from bsmamba2.formats.yaml_file import read_yaml

ROFORMER: dict[str, Any] = {
    "audio": {"chunk_size": 352800, "sample_rate": 44100},
    "model": {"dim": 8, "depth": 1, "num_stems": 1, "stft_hop_length": 441, "zero_dc": False},
    "training": {"instruments": ["Vocals", "Other"], "target_instrument": "Vocals"},
    "inference": {"num_overlap": 4},
}
SHAPES = {
    "layers.0.0.norm.gamma": (8,),
    "mask_estimators.0.to_freqs.0.0.0.weight": (8, 8),
    "band_split.to_features.0.1.weight": (8, 28),
}


def write(tmp_path: Path, document: Any) -> Path:
    path = tmp_path / "m.yaml"
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return path


def settings(tmp_path: Path, document: Any, family: str = "bs_roformer") -> ModelSettings:
    return settings_from_yaml(write(tmp_path, document), family, SHAPES)


def test_a_roformer_s_yaml_states_stems_hop_chunk_and_overlap(tmp_path: Path) -> None:
    expected = ModelSettings(
        ("vocals",), None, 44100, hop=441, chunk=352800, overlap=0.75, zero_dc=False
    )
    assert settings(tmp_path, ROFORMER) == expected


@pytest.mark.parametrize("family", ["bs_roformer", "mel_band_roformer"])
def test_a_roformer_s_yaml_that_does_not_state_zero_dc_means_msst_s_default(
    tmp_path: Path, family: str
) -> None:
    model = {name: value for name, value in ROFORMER["model"].items() if name != "zero_dc"}
    assert settings(tmp_path, ROFORMER | {"model": model}, family).zero_dc is True


def test_the_other_of_two_instruments_names_the_residual(tmp_path: Path) -> None:
    training = {"instruments": ["No Reverb", "reverb"], "target_instrument": "No Reverb"}
    read = settings(tmp_path, ROFORMER | {"training": training})
    assert (read.stems, read.residual) == (("no_reverb",), "reverb")


def test_inference_may_have_another_chunk(tmp_path: Path) -> None:
    inference = {"chunk_size": 131584}
    assert settings(tmp_path, ROFORMER | {"inference": inference}).chunk == 131584


def test_ht_demucs_states_its_chunk_in_seconds(tmp_path: Path) -> None:
    document = {
        "model": "htdemucs",
        "training": {"segment": 11, "instruments": ["vocals", "other"]},
        "htdemucs": {"samplerate": 44100},
    }
    read = settings(tmp_path, document, "htdemucs")
    assert (read.chunk, read.stems, read.hop) == (485100, ("vocals", "other"), None)


@pytest.mark.parametrize("normalize", [True, False])
def test_scnet_states_whether_a_song_is_normalised(tmp_path: Path, normalize: bool) -> None:
    document = ROFORMER | {"model": {"hop_size": 1024}, "inference": {"normalize": normalize}}
    read = settings(tmp_path, document, "scnet")
    assert (read.normalize, read.hop) == (normalize, 1024)


@pytest.mark.parametrize("name", ["dim", "depth", "num_stems"])
def test_a_size_that_contradicts_the_checkpoint_is_refused_with_both(
    tmp_path: Path, name: str
) -> None:
    document = ROFORMER | {"model": ROFORMER["model"] | {name: 77}}
    with pytest.raises(ModelError, match=rf"model.{name} must be .* BS-RoFormer with [18]; got 77"):
        settings(tmp_path, document)


@pytest.mark.parametrize(
    "document",
    [
        "[1, 2]",
        "a: [",
        "!!python/object/apply:os.system ['true']",
        "audio: [1]",
        "model: {stft_hop_length: [1]}",
        "audio: {chunk_size: x}",
        "inference: {num_overlap: 0}",
    ],
)
def test_a_damaged_yaml_is_refused_with_its_path(tmp_path: Path, document: str) -> None:
    with pytest.raises(ModelError, match=r"^config must be .*m\.yaml"):
        settings(tmp_path, document)


def test_tuples_are_read(tmp_path: Path) -> None:
    assert read_yaml(write(tmp_path, "a: !!python/tuple [1, 2]"))["a"] == (1, 2)
