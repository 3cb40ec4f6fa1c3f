"""The kind of model that a name or a path stands for."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from bsmamba2.errors import ModelError
from bsmamba2.formats.engine_file import BuildKey, EngineFile
from bsmamba2.models.checkpoint_model import CheckpointModel
from bsmamba2.models.onnx_model import OnnxModel
from bsmamba2.models.open_model import open_model
from bsmamba2.models.registry import DEFAULT
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


def test_a_precision_is_only_for_checkpoints(write_onnx: WriteOnnx, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="precision must be left out for model.onnx, which has it"):
        open_model(write_onnx(gain_model()), precision="fp16")
    path = write_checkpoint(tmp_path / "voice.safetensors")
    assert open_model(path, precision="fp16").manifest.precision == "fp16"


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


def test_without_a_name_the_shipped_model_is_opened() -> None:
    assert open_model().manifest.name == DEFAULT
