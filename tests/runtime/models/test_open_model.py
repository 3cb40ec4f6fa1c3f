"""Opening a model by name or path, and the errors for those that cannot be opened."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from bsmamba2 import ModelError, Separator
from bsmamba2.formats.engine_file import BuildKey, EngineFile
from bsmamba2.models import registry
from bsmamba2.models.checkpoint_model import CheckpointModel
from bsmamba2.models.onnx_model import OnnxModel
from bsmamba2.models.open_model import SUFFIXES, find_model_path, open_model
from bsmamba2.models.registry import DEFAULT, PUBLISHED, shipped
from bsmamba2.models.tensorrt_model import TensorRtModel
from support.fixtures import WriteOnnx
from support.models import MANIFEST, gain_model, write_checkpoint


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BSMAMBA2_CACHE", str(tmp_path / "cache"))


def test_an_onnx_file_is_an_exported_model(write_onnx: WriteOnnx) -> None:
    model = open_model(write_onnx(gain_model()))
    assert isinstance(model, OnnxModel)
    assert model.manifest == MANIFEST


def test_an_engine_file_is_a_tensorrt_model(tmp_path: Path) -> None:
    path = tmp_path / "voice.engine"
    path.write_bytes(b"engine")
    key = BuildKey("0" * 64, "tensorrt-rtx", "1.7", ("sm90",), batch=1, frames=100)
    EngineFile(path, MANIFEST, key, hashlib.sha256(b"engine").hexdigest()).write_description()
    assert isinstance(open_model(path), TensorRtModel)


def test_a_safetensors_file_is_a_checkpoint(tmp_path: Path) -> None:
    model = open_model(str(write_checkpoint(tmp_path / "voice.safetensors")))
    assert isinstance(model, CheckpointModel)
    assert model.manifest.name == "voice"


@pytest.mark.parametrize("model", [None, "", DEFAULT])
def test_without_a_name_the_shipped_model_is_opened(model: str | None) -> None:
    assert find_model_path(model) == shipped()[DEFAULT]
    assert open_model(model).manifest.name == DEFAULT


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_known_suffix_is_a_model(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"voice{suffix}"
    path.touch()
    assert find_model_path(path) == path


def test_a_file_with_another_suffix_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "model.tflite").touch()
    with pytest.raises(ModelError, match=r"model must be a file in \.onnx, \.engine.*; got '.*tfl"):
        open_model(tmp_path / "model.tflite")


@pytest.mark.parametrize("name", ["none.engine", "none.onnx", "x" * 300 + ".ckpt", "folder/none"])
def test_a_missing_model_file_is_an_error(name: str) -> None:
    with pytest.raises(ModelError, match="there is no model file .*: check its name and folder"):
        Separator(name)


def test_an_unknown_name_is_an_error_with_the_nearest_one() -> None:
    message = r"there is no model called 'bs_mamba2_voclas': did you mean bs_mamba2_vocals\?"
    with pytest.raises(ModelError, match=message):
        open_model("bs_mamba2_voclas")


def test_an_unknown_name_like_no_other_is_an_error_that_explains_how_to_get_a_model() -> None:
    with pytest.raises(ModelError, match=r"no model called 'x': use --model .* models fetch"):
        open_model("x")


def test_a_copy_without_weights_explains_how_to_get_a_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry, "shipped", dict)
    with pytest.raises(ModelError, match="model must be given.*use --model .* models fetch"):
        open_model()


def test_a_published_model_must_be_downloaded_first() -> None:
    name = PUBLISHED[0].name
    with pytest.raises(ModelError, match=f"{name} is not downloaded yet: run bsmamba2 models fet"):
        Separator(name, "cpu")
