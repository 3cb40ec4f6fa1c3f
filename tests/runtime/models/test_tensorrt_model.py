"""TensorRT engine files, as far as they can be used without a card."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from bsmamba2 import DeviceError, ModelError
from bsmamba2.devices import nvidia
from bsmamba2.devices.device import CPU, Device
from bsmamba2.devices.nvidia import Card, Driver
from bsmamba2.formats.engine_file import BuildKey, EngineFile
from bsmamba2.models.tensorrt_model import TensorRtModel
from support.models import MANIFEST

KEY = BuildKey("0" * 64, "tensorrt-rtx", "1.7", ("sm90",), batch=1, frames=100)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TensorRtModel:
    """An engine that this user built."""
    monkeypatch.setenv("BSMAMBA2_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "voice.engine"
    path.write_bytes(b"engine")
    EngineFile(path, MANIFEST, KEY, hashlib.sha256(b"engine").hexdigest()).write_description()
    return TensorRtModel(path)


def test_a_model_is_described_without_loading_it(model: TensorRtModel) -> None:
    assert model.manifest == MANIFEST
    assert not model.can_stream


def test_only_tensorrt_devices_run_it(
    model: TensorRtModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = Card("Fast Card", (9, 0), 80 << 30)
    monkeypatch.setattr(nvidia, "driver", lambda: Driver((card,), (13, 0)))
    assert model.choose_device("auto") == Device("tensorrt", 0)
    with pytest.raises(DeviceError, match=r"device must be auto or tensorrt\[:N\]"):
        model.choose_device("cpu")


def test_without_a_driver_the_error_names_the_model_to_use_instead(
    model: TensorRtModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nvidia, "driver", lambda: None)
    with pytest.raises(DeviceError, match="no NVIDIA driver.*use the model that the engine was bu"):
        model.choose_device("auto")


def test_an_engine_has_no_steps_and_no_graph(model: TensorRtModel) -> None:
    with pytest.raises(ModelError, match="lookahead_ms must be left out with voice.engine"):
        model.step_engine(CPU)
    with pytest.raises(
        ModelError, match="is already an engine: give the model that it was built from"
    ):
        model.graph()


def test_an_engine_of_another_user_is_not_loaded_without_trust(
    model: TensorRtModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BSMAMBA2_CACHE", str(tmp_path / "another"))
    with pytest.raises(ModelError, match="trust_engine"):
        TensorRtModel(model.path).chunk_engine(Device("tensorrt"))
