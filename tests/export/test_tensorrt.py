"""TensorRT: the retargeted graph computes the same, and TensorRT-RTX builds engines from it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import onnxruntime
import pytest

from bsmamba2.audio.array import Audio
from bsmamba2.audio.snr import snr_db
from bsmamba2.devices import kernel
from bsmamba2.engines.tensorrt_import import import_tensorrt
from bsmamba2.errors import DeviceError, ModelError
from bsmamba2.formats.engine_file import BuildKey, EngineFile, description_path, read_engine
from bsmamba2.formats.onnx_file import read_onnx
from bsmamba2.models.check import check_input
from bsmamba2_export import engine_builder
from bsmamba2_export.engine_builder import TimingCache, build_engine
from bsmamba2_export.tensorrt_target import retarget
from bsmamba2_network import BSMamba2

pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed")


@pytest.fixture(scope="module")
def portable(exported: Callable[..., Path]) -> Path:
    return exported("portable")


@pytest.fixture(scope="module")
def engine(portable: Path, tmp_path_factory: pytest.TempPathFactory) -> EngineFile:
    path = tmp_path_factory.mktemp("engine") / "voice.engine"
    return build_engine(portable, path, gpus=["sm89", "sm120"])


def run(
    model: onnx.ModelProto, spectrum: Audio, options: onnxruntime.SessionOptions | None = None
) -> Audio:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    stems: Audio = session.run(None, {"spectrum": spectrum})[0]
    return stems


def test_the_inlined_graph_computes_the_same_with_only_standard_operators(portable: Path) -> None:
    model = onnx.load(portable)
    inlined = retarget(model, read_onnx(portable).manifest)
    assert {node.domain for node in inlined.graph.node} <= {"", "ai.onnx"}
    spectrum = check_input(1, 2, 20 * 1025).reshape(1, 2, 10, 1025, 2)
    assert snr_db(run(model, spectrum), run(inlined, spectrum)) >= 110


def test_an_export_for_tensorrt_is_the_retargeted_portable_model(
    exported: Callable[..., Path], portable: Path
) -> None:
    model = onnx.load(exported("tensorrt"))
    manifest = read_onnx(exported("tensorrt")).manifest
    assert manifest.target == "tensorrt"
    assert min(manifest.verification.values()) >= 90
    retargeted = retarget(onnx.load(portable), manifest)
    assert [n.op_type for n in retargeted.graph.node] == [n.op_type for n in model.graph.node]


def test_inlining_keeps_all_other_nodes_and_weights(portable: Path) -> None:
    model = onnx.load(portable)
    inlined = retarget(model, read_onnx(portable).manifest)
    outside = [node.op_type for node in model.graph.node if node.domain != "bsmamba2"]
    kept = iter(node.op_type for node in inlined.graph.node)
    assert all(kind in kept for kind in outside)  # in this order
    assert {v.name for v in model.graph.initializer} <= {v.name for v in inlined.graph.initializer}


def test_the_plugin_graph_keeps_only_the_scans_and_our_operator_runs_them(portable: Path) -> None:
    manifest = read_onnx(portable).manifest
    model = onnx.load(portable)
    plugged = retarget(model, manifest, "tensorrt-plugin")
    scans = [node for node in plugged.graph.node if node.domain == "bsmamba2"]
    assert not plugged.functions
    assert {node.op_type for node in scans} == {"mamba2_scan"}
    marks = {a.name: a.s for a in scans[0].attribute if a.name.startswith("plugin")}
    assert marks == {"plugin_namespace": b"bsmamba2", "plugin_version": b"1"}
    if kernel.library() is None:
        return
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(str(kernel.library()))
    spectrum = check_input(1, 2, 20 * 1025).reshape(1, 2, 10, 1025, 2)
    assert snr_db(run(model, spectrum), run(plugged, spectrum, options)) >= 110


def test_a_size_without_cuda_kernels_cannot_use_the_plugin(portable: Path) -> None:
    model, manifest = onnx.load(portable), read_onnx(portable).manifest
    other = manifest.replace(initialisers={})
    with pytest.raises(ModelError, match=r"the CUDA kernels support.*use the target tensorrt"):
        retarget(model, other, "tensorrt-plugin")


@pytest.mark.parametrize("target", ["inlined", "tensorrt"])
def test_a_model_with_inlined_scans_cannot_use_the_plugin(
    exported: Callable[..., Path], target: str
) -> None:
    path = exported(target)
    with pytest.raises(ModelError, match=f"its scans as nodes.*with the target {target}: export"):
        retarget(onnx.load(path), read_onnx(path).manifest, "tensorrt-plugin")


def test_an_engine_is_built_from_an_inlined_model_too(
    exported: Callable[..., Path], portable: Path
) -> None:
    path = exported("inlined")
    one, other = (
        retarget(onnx.load(model), read_onnx(model).manifest) for model in (path, portable)
    )
    assert [n.op_type for n in one.graph.node] == [n.op_type for n in other.graph.node]


def test_an_engine_for_two_gpus_is_built_without_a_gpu(engine: EngineFile, portable: Path) -> None:
    stored = read_engine(engine.path)
    assert (stored.key, stored.sha256) == (engine.key, engine.sha256)
    assert stored.key.gpus == ("sm89", "sm120")
    expected = read_onnx(portable).manifest.replace(target="tensorrt")
    assert stored.manifest.to_json() == expected.to_json()
    stored.require_trust()


def test_engines_do_not_use_tf32(
    monkeypatch: pytest.MonkeyPatch, portable: Path, tmp_path: Path
) -> None:
    trt = import_tensorrt("tensorrt-rtx")
    tf32_flags = []

    def build(builder: Any, network: Any, config: Any) -> bytes:
        tf32_flags.append(config.get_flag(trt.BuilderFlag.TF32))
        return b"engine"

    monkeypatch.setattr(trt.Builder, "build_serialized_network", build)
    build_engine(portable, tmp_path / "voice.engine", gpus=["sm89"], seconds=0.2)
    assert tf32_flags == [False]


def test_an_engine_takes_audio_unless_the_model_takes_spectra(
    monkeypatch: pytest.MonkeyPatch, portable: Path, tmp_path: Path
) -> None:
    checkpoint, lengths = tmp_path / "tiny.safetensors", []
    BSMamba2.untrained("tiny").save(checkpoint)

    def build(*arguments: Any) -> bytes:
        lengths.append(arguments[4])
        return b"engine"

    monkeypatch.setattr(engine_builder, "_build", build)
    engines = [
        build_engine(model, tmp_path / f"{name}.engine", gpus=["sm89"], seconds=1)
        for name, model in (("audio", checkpoint), ("spectra", portable))
    ]
    assert [engine.manifest.io for engine in engines] == ["waveform", "spectrum"]
    assert lengths == [(1025, 86 * 512, 87 * 512 - 1), (1, 87, 87)]  # a hop has 512 samples


def test_an_existing_engine_is_not_rebuilt_or_replaced_by_another(
    engine: EngineFile, portable: Path
) -> None:
    before = engine.path.stat().st_mtime_ns
    build_engine(portable, engine.path, gpus=["sm89", "sm120"])
    assert engine.path.stat().st_mtime_ns == before
    with pytest.raises(ModelError, match="output must be a new file; got"):
        build_engine(portable, engine.path, gpus=["sm86"])


@pytest.mark.parametrize("changes", [{"version": "1.0"}, {"model_sha256": "0" * 64}])
def test_an_engine_is_rebuilt_if_its_model_or_tensorrt_has_changed(
    portable: Path, tmp_path: Path, changes: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_builder, "_build", lambda *arguments: b"engine")
    engine = build_engine(portable, tmp_path / "voice.engine", gpus=["sm89"], seconds=0.2)
    key = BuildKey(**{**vars(engine.key), **changes})
    dataclasses.replace(engine, key=key).write_description()
    reports: list[str] = []
    build_engine(portable, engine.path, gpus=["sm89"], seconds=0.2, report=reports.append)
    message = "voice.engine was built from another model or by another TensorRT: rebuilding it"
    assert message in reports
    assert read_engine(engine.path).key == engine.key


def test_a_file_that_we_did_not_build_is_not_replaced(portable: Path, tmp_path: Path) -> None:
    (tmp_path / "voice.engine").write_bytes(b"precious")
    with pytest.raises(ModelError, match="output must be a new file; got"):
        build_engine(portable, tmp_path / "voice.engine", gpus=["sm89"])
    assert (tmp_path / "voice.engine").read_bytes() == b"precious"


class TimingConfig:
    """A mock of the timing cache in TensorRT's builder configuration."""

    def create_timing_cache(self, data: bytes) -> SimpleNamespace | None:
        return None if data == b"damaged" else SimpleNamespace(serialize=lambda: data + b"more")

    def set_timing_cache(self, cache: SimpleNamespace, ignore_mismatch: bool) -> None:
        assert not ignore_mismatch
        self.cache = cache

    def get_timing_cache(self) -> SimpleNamespace:
        return self.cache


def test_models_share_the_timings_of_a_tensorrt_version() -> None:
    key = BuildKey("0" * 64, "tensorrt", "11.4", ("NVIDIA L4",), 1, 801)
    for model, version, expected in (
        ("0", "11.4", b"more"),
        ("1", "11.4", b"moremore"),
        ("1", "11.5", b"more"),
    ):
        timings = TimingCache(dataclasses.replace(key, model_sha256=model * 64, version=version))
        config = TimingConfig()
        timings.load_into(config)
        timings.save_from(config)
        assert timings.path.read_bytes() == expected
    timings.path.write_bytes(b"damaged")
    timings.load_into(config)
    timings.save_from(config)
    assert timings.path.read_bytes() == b"more"


def test_an_engine_built_elsewhere_is_refused_unless_it_is_trusted(
    engine: EngineFile, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BSMAMBA2_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="was not built here"):
        read_engine(engine.path).require_trust()
    read_engine(engine.path).require_trust(trust_engine=True)


def test_a_truncated_engine_and_a_damaged_description_are_refused(
    engine: EngineFile, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.engine"
    copy.write_bytes(engine.path.read_bytes()[:-1])
    with pytest.raises(ModelError, match=r"copy\.engine\.json"):
        read_engine(copy)
    text = description_path(engine.path).read_text()
    description_path(copy).write_text(text)
    with pytest.raises(ModelError, match="it was damaged or replaced"):
        read_engine(copy).require_trust(trust_engine=True)
    description_path(copy).write_text(json.dumps(json.loads(text) | {"key": {}}))
    with pytest.raises(ModelError, match="is damaged"):
        read_engine(copy)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({}, DeviceError, "no NVIDIA GPU to build an engine for: name one, e.g. sm89"),
        ({"gpus": ["sm90"]}, DeviceError, "gpu must be one of sm120, sm121, sm80"),
        ({"gpus": ["sm89"], "batch": 0}, ModelError, r"batch must be in \[1, 64\]; got 0"),
        ({"gpus": ["sm89"], "seconds": 99}, ModelError, r"seconds must be in \[0.1, 60\]; got 99"),
        ({"gpus": ["sm89"], "backend": "trt"}, ModelError, "backend must be one of"),
        ({"gpus": ["sm89"], "plugin": True}, ModelError, "plugin needs the backend tensorrt; got"),
    ],
)
def test_an_invalid_request_is_refused(
    portable: Path, tmp_path: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        build_engine(portable, tmp_path / "x.engine", **changes)
    assert not list(tmp_path.iterdir())
