"""A model on a device: its engine for chunks, and its steps for streams."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.numpy

from bsmamba2 import DeviceError, ModelError
from bsmamba2.devices.device import CPU, Device
from bsmamba2.devices.products import products
from bsmamba2.engines.protocols import Engine
from bsmamba2.engines.step_engine import StepEngine
from bsmamba2.models.checkpoint_model import CheckpointModel
from bsmamba2.models.loaded_model import LoadedModel
from support.engines import StubModel, Stubs
from support.models import random_weights, write_checkpoint


def test_an_engine_is_used_as_it_is_on_its_own_device(stub: Stubs) -> None:
    engine = stub.half()
    assert LoadedModel(engine).engine is engine
    with pytest.raises(DeviceError, match="device must be 'auto' with an engine.*; got 'cuda'"):
        LoadedModel(engine, "cuda")


def test_a_name_is_opened_on_the_requested_device(
    stub: Stubs, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[Any, bool, Any, str]] = []

    def open_model(model: str, trust_engine: bool, config: Any, precision: str) -> StubModel:
        opened.append((model, trust_engine, config, precision))
        return StubModel(stub.half(name=model))

    monkeypatch.setattr("bsmamba2.models.loaded_model.open_model", open_model)
    assert LoadedModel("voice", "cpu").engine.manifest.name == "voice"
    LoadedModel("voice", trust_engine=True, config="voice.yaml", precision="bf16")
    assert opened == [("voice", False, None, "fp32"), ("voice", True, "voice.yaml", "bf16")]


def test_an_engine_takes_no_config(stub: Stubs) -> None:
    with pytest.raises(ModelError, match="config must be None with an engine.*; got 'x.yaml'"):
        LoadedModel(stub.half(), config="x.yaml")
    assert LoadedModel(stub.half()).guesses == ()


def test_what_is_assumed_is_passed_on(tmp_path: Path) -> None:
    path = tmp_path / "plain.safetensors"
    safetensors.numpy.save_file(random_weights(), path)
    yaml = tmp_path / "plain.yaml"
    yaml.write_text("audio: {chunk_size: 44100}")
    assert LoadedModel(path, "cpu").guesses == ("stems", "hop", "chunk")
    loaded = LoadedModel(path, "cpu", config=yaml)
    assert (loaded.guesses, loaded.engine.manifest.chunk) == (("stems", "hop"), 44100)


def test_an_engine_has_its_own_speed(stub: Stubs) -> None:
    with pytest.raises(DeviceError, match="speed must be 'exact' with an engine.*; got 'fast'"):
        LoadedModel(stub.half(), speed="fast")


@pytest.mark.parametrize("speed", ["exact", "fast"])
def test_chunks_and_streams_run_at_the_requested_speed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, speed: str
) -> None:
    requested: list[str] = []
    for name in ("chunk_engine", "step_engine"):
        load = getattr(CheckpointModel, name)

        def spy(self: CheckpointModel, *arguments: Any, load: Any = load, **options: Any) -> Any:
            requested.append(options["speed"])
            return load(self, *arguments, **options)

        monkeypatch.setattr(CheckpointModel, name, spy)
    model = LoadedModel(write_checkpoint(tmp_path / "v.safetensors"), "cpu", speed=speed)
    model.new_stepper()
    assert requested == [speed, speed]
    assert model.products == products(speed)


def test_an_unknown_speed_is_refused(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "voice.safetensors")
    with pytest.raises(DeviceError, match="speed must be exact or fast; got 'warp'"):
        LoadedModel(path, "cpu", speed="warp")


def test_an_engine_for_whole_chunks_has_no_steps(stub: Stubs) -> None:
    with pytest.raises(ModelError, match="lookahead_ms must be None with an engine"):
        LoadedModel(stub.half()).new_stepper()


def test_the_engine_is_loaded_at_its_first_use_and_once(
    stub: Stubs, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[Device] = []

    class CountingModel(StubModel):
        def chunk_engine(self, device: Device, **_: object) -> Engine:
            loaded.append(device)
            return self.engine

    opened = CountingModel(stub.half(name="voice"))
    monkeypatch.setattr("bsmamba2.models.loaded_model.open_model", lambda *_, **__: opened)
    model = LoadedModel("voice", "cpu")
    assert (model.manifest.name, model.device, loaded) == ("voice", CPU, [])
    assert model.engine is model.engine is opened.engine
    assert loaded == [CPU]


def test_steps_are_loaded_once_and_given_to_each_stream_with_its_own_states(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[StepEngine] = []
    load = CheckpointModel.step_engine

    def step_engine(self: CheckpointModel, *arguments: Any, **options: Any) -> StepEngine:
        loaded.append(load(self, *arguments, **options))
        return loaded[-1]

    monkeypatch.setattr(CheckpointModel, "step_engine", step_engine)
    model = LoadedModel(write_checkpoint(tmp_path / "voice.safetensors"), "cpu")
    assert loaded == []
    one, other = model.new_stepper(), model.new_stepper()
    assert len(loaded) == 1
    assert one is not other
    assert isinstance(one, StepEngine)
    assert isinstance(other, StepEngine)
    assert one._session is other._session
    assert one.device == model.engine.device == CPU
