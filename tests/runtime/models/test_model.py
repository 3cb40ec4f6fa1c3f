"""Common to all kinds of models: the choice of a device and the verification of engines."""

from __future__ import annotations

from pathlib import Path

import pytest

from bsmamba2 import DeviceError
from bsmamba2.devices.device import CPU
from bsmamba2.engines.step_engine import SteppedEngine
from bsmamba2.files.cache import cache_folder
from bsmamba2.formats.onnx_file import read_onnx
from bsmamba2.models import model as module
from bsmamba2.models.check import make_check
from bsmamba2.models.checkpoint_model import CheckpointModel
from bsmamba2.models.graph import Graph
from bsmamba2.models.model import verify_chunks
from bsmamba2.models.onnx_model import OnnxModel
from support.engines import Stubs
from support.fixtures import WriteOnnx
from support.models import MANIFEST, gain_model, write_checkpoint


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BSMAMBA2_CACHE", str(tmp_path / "cache"))


def test_the_name_of_a_device_is_turned_into_the_device(write_onnx: WriteOnnx) -> None:
    model = OnnxModel(write_onnx(gain_model()))
    assert model.choose_device("cpu") == CPU
    with pytest.raises(DeviceError, match="device must be auto, cpu"):
        model.choose_device("gpu")


def test_every_way_to_run_a_model_can_be_checked(write_onnx: WriteOnnx, tmp_path: Path) -> None:
    exported = OnnxModel(write_onnx(gain_model()))
    assert [form for form, _ in exported.checkable_engines(CPU)] == ["whole chunks"]
    checkpoint = CheckpointModel(write_checkpoint(tmp_path / "voice.safetensors"))
    engines = dict(checkpoint.checkable_engines(CPU))
    assert list(engines) == ["whole chunks", "a stream"]
    assert isinstance(engines["a stream"], SteppedEngine)


def test_a_verdict_holds_for_one_model_and_one_version_of_the_software(
    write_onnx: WriteOnnx, stub: Stubs, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = stub.half(check=make_check(stub.half()))
    for version in ("1.0", "1.0", "2.0"):
        monkeypatch.setattr(module, "software", lambda: {"onnxruntime": version})  # noqa: B023
        file = read_onnx(write_onnx(gain_model()))
        verify_chunks(engine, Graph(file, engine.manifest))
    assert len(engine.lengths) == 2
    assert len(list((cache_folder() / "verdicts").iterdir())) == 2


def test_a_model_without_a_check_is_not_hashed(
    write_onnx: WriteOnnx, stub: Stubs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Graph, "sha256", property(lambda self: pytest.fail("it was hashed")))
    verify_chunks(stub.half(), Graph(read_onnx(write_onnx(gain_model())), MANIFEST))
