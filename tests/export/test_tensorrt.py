"""TensorRT: the retargeted graph computes the same, and real engines are built of it."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import onnx
import onnxruntime
import pytest

from bsmamba2.audio.snr import snr_db
from bsmamba2.devices import kernel
from bsmamba2.engines.tensorrt_package import import_tensorrt
from bsmamba2.errors import DeviceError, ModelError
from bsmamba2.formats.engine_file import BuildKey, description_path, read_engine
from bsmamba2.formats.onnx_file import read_onnx
from bsmamba2.models.check import check_input
from bsmamba2_export import engine_builder
from bsmamba2_export.engine_builder import TimingCache, build_engine
from bsmamba2_export.tensorrt_target import retarget

pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed")


@pytest.fixture(scope="module")
def portable(exported):
    return exported("portable")


@pytest.fixture(scope="module")
def engine(portable, tmp_path_factory):
    path = tmp_path_factory.mktemp("engine") / "voice.engine"
    return build_engine(portable, path, gpus=["sm89", "sm120"])


def run(model, spectrum, options=None):
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"spectrum": spectrum})[0]


def test_the_inlined_graph_computes_the_same_with_standard_operators_alone(portable):
    model = onnx.load(portable)
    made = retarget(model, read_onnx(portable).manifest)
    assert {node.domain for node in made.graph.node} <= {"", "ai.onnx"}
    spectrum = check_input(1, 2, 20 * 1025).reshape(1, 2, 10, 1025, 2)
    wanted = run(model.SerializeToString(), spectrum)
    assert snr_db(wanted, run(made.SerializeToString(), spectrum)) >= 110


def test_an_export_for_tensorrt_is_the_verified_file_retargeted(exported, portable):
    made = onnx.load(exported("tensorrt"))
    manifest = read_onnx(exported("tensorrt")).manifest
    assert manifest.target == "tensorrt"
    assert min(manifest.verification.values()) >= 90
    again = retarget(onnx.load(portable), manifest)
    assert [node.op_type for node in again.graph.node] == [n.op_type for n in made.graph.node]


def test_nothing_but_the_bodies_changes(portable):
    model = onnx.load(portable)
    made = retarget(model, read_onnx(portable).manifest)
    outside = [node.op_type for node in model.graph.node if node.domain != "bsmamba2"]
    kept = iter(node.op_type for node in made.graph.node)
    assert all(kind in kept for kind in outside)  # in this order
    assert {v.name for v in model.graph.initializer} <= {v.name for v in made.graph.initializer}


def test_for_the_plugin_only_the_scans_are_left_and_our_own_operator_runs_them(portable):
    manifest = read_onnx(portable).manifest
    model = onnx.load(portable)
    made = retarget(model, manifest, "tensorrt-plugin")
    scans = [node for node in made.graph.node if node.domain == "bsmamba2"]
    assert not made.functions
    assert {node.op_type for node in scans} == {"mamba2_scan"}
    marks = {a.name: a.s for a in scans[0].attribute if a.name.startswith("plugin")}
    assert marks == {"plugin_namespace": b"bsmamba2", "plugin_version": b"1"}
    if kernel.library() is None:
        return
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(str(kernel.library()))
    spectrum = check_input(1, 2, 20 * 1025).reshape(1, 2, 10, 1025, 2)
    wanted = run(model.SerializeToString(), spectrum)
    assert snr_db(wanted, run(made.SerializeToString(), spectrum, options)) >= 110


def test_a_size_without_cuda_kernels_gets_no_plugin(portable):
    model, manifest = onnx.load(portable), read_onnx(portable).manifest
    other = manifest.replace(initialisers={})
    with pytest.raises(ModelError, match="no CUDA kernels for: use the target tensorrt"):
        retarget(model, other, "tensorrt-plugin")


def test_an_engine_for_two_gpus_is_built_where_there_is_none(engine, portable):
    known = read_engine(engine.path)
    assert (known.key, known.sha256) == (engine.key, engine.sha256)
    assert known.key.gpus == ("sm89", "sm120")
    wanted = read_onnx(portable).manifest.replace(target="tensorrt")
    assert known.manifest.to_json() == wanted.to_json()
    known.require_trust()


def test_float32_means_float32(monkeypatch, portable, tmp_path):
    trt = import_tensorrt("tensorrt-rtx")
    asked = []

    def build(builder, network, config):
        asked.append(config.get_flag(trt.BuilderFlag.TF32))
        return b"engine"

    monkeypatch.setattr(trt.Builder, "build_serialized_network", build)
    build_engine(portable, tmp_path / "voice.engine", gpus=["sm89"], seconds=0.2)
    assert asked == [False]


def test_the_same_engine_is_not_built_twice_and_another_not_written_over_it(engine, portable):
    before = engine.path.stat().st_mtime_ns
    build_engine(portable, engine.path, gpus=["sm89", "sm120"])
    assert engine.path.stat().st_mtime_ns == before
    with pytest.raises(ModelError, match="exists: choose another, or overwrite it"):
        build_engine(portable, engine.path, gpus=["sm86"])


@pytest.mark.parametrize("changes", [{"version": "1.0"}, {"model_sha256": "0" * 64}])
def test_one_whose_model_or_tensorrt_has_changed_is_built_again(
    portable, tmp_path, changes, monkeypatch
):
    monkeypatch.setattr(engine_builder, "_build", lambda *given: b"engine")
    engine = build_engine(portable, tmp_path / "voice.engine", gpus=["sm89"], seconds=0.2)
    stale = dataclasses.replace(engine, key=dataclasses.replace(engine.key, **changes))
    stale.write_description()
    said = []
    build_engine(portable, engine.path, gpus=["sm89"], seconds=0.2, report=said.append)
    assert "voice.engine is of another model or TensorRT: building it again" in said
    assert read_engine(engine.path).key == engine.key


def test_what_no_build_of_ours_wrote_is_not_written_over(portable, tmp_path):
    (tmp_path / "voice.engine").write_bytes(b"precious")
    with pytest.raises(ModelError, match="exists: choose another, or overwrite it"):
        build_engine(portable, tmp_path / "voice.engine", gpus=["sm89"])
    assert (tmp_path / "voice.engine").read_bytes() == b"precious"


class TimingConfig:
    """TensorRT's builder configuration, as far as its timing cache goes."""

    def create_timing_cache(self, data):
        return None if data == b"damaged" else SimpleNamespace(serialize=lambda: data + b"more")

    def set_timing_cache(self, cache, ignore_mismatch):
        assert not ignore_mismatch
        self.cache = cache

    def get_timing_cache(self):
        return self.cache


def test_timings_are_kept_by_tensorrt_and_gpu_whatever_the_model():
    key = BuildKey("0" * 64, "tensorrt", "11.4", ("NVIDIA L4",), 1, 801)
    for model, version, wanted in (
        ("0", "11.4", b"more"),
        ("1", "11.4", b"moremore"),
        ("1", "11.5", b"more"),
    ):
        timings = TimingCache(dataclasses.replace(key, model_sha256=model * 64, version=version))
        config = TimingConfig()
        timings.give_to(config)
        timings.take_from(config)
        assert timings.path.read_bytes() == wanted
    timings.path.write_bytes(b"damaged")
    timings.give_to(config)
    timings.take_from(config)
    assert timings.path.read_bytes() == b"more"


def test_an_engine_of_a_strangers_is_refused_unless_it_is_trusted(engine, monkeypatch, tmp_path):
    monkeypatch.setenv("BSMAMBA2_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="was not built here"):
        read_engine(engine.path).require_trust()
    read_engine(engine.path).require_trust(trust_engine=True)


def test_a_truncated_engine_and_a_damaged_description_are_refused(engine, tmp_path):
    copy = tmp_path / "copy.engine"
    copy.write_bytes(engine.path.read_bytes()[:-1])
    with pytest.raises(ModelError, match=r"copy\.engine\.json next to it"):
        read_engine(copy)
    text = description_path(engine.path).read_text()
    description_path(copy).write_text(text)
    with pytest.raises(ModelError, match="it was damaged or replaced"):
        read_engine(copy).require_trust(trust_engine=True)
    description_path(copy).write_text(json.dumps(json.loads(text) | {"key": {}}))
    with pytest.raises(ModelError, match="is damaged"):
        read_engine(copy)


@pytest.mark.parametrize(
    ("changes", "kind", "sentence"),
    [
        ({}, DeviceError, "no NVIDIA GPU here to build an engine for: name one with --gpu"),
        ({"gpus": ["sm90"]}, DeviceError, "gpu must be one of sm120, sm121, sm80"),
        ({"gpus": ["sm89"], "batch": 0}, ModelError, "batch must be 1 to 64"),
        ({"gpus": ["sm89"], "seconds": 99}, ModelError, "seconds must be 0.1 to 60"),
        ({"gpus": ["sm89"], "backend": "trt"}, ModelError, "backend must be one of"),
        ({"gpus": ["sm89"], "plugin": True}, ModelError, "tensorrt-rtx takes no plugins"),
    ],
)
def test_what_cannot_be_built_is_a_sentence(portable, tmp_path, changes, kind, sentence):
    with pytest.raises(kind, match=sentence):
        build_engine(portable, tmp_path / "x.engine", **changes)
    assert not list(tmp_path.iterdir())
