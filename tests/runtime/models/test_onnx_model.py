"""Exported models: for whole chunks or for streams, and in reduced precision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from bsmamba2 import DeviceError, ModelError, Separator
from bsmamba2.devices.device import CPU
from bsmamba2.engines.float32_twin import ReducedPrecisionOrtEngine
from bsmamba2.engines.step_engine import StepEngine, StepsAsEngine
from bsmamba2.files.cache import cache_folder
from bsmamba2.models.check import make_check
from bsmamba2.models.graph import shipped_graphs
from bsmamba2.models.onnx_model import OnnxModel
from support.engines import Stubs
from support.fixtures import Noise, WriteOnnx
from support.models import MANIFEST, gain_model, random_weights


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BSMAMBA2_CACHE", str(tmp_path / "cache"))


def streaming_model() -> bytes:
    """A shipped graph for streams with random weights inside."""
    graph = next(g for g in shipped_graphs() if g.path.stem == "tiny-streaming")
    model, weights = onnx.load(graph.path, load_external_data=False), random_weights()
    for tensor in model.graph.initializer:
        if tensor.name in graph.missing_weights:
            tensor.ClearField("external_data")
            tensor.data_location = TensorProto.DEFAULT
            tensor.raw_data = weights[tensor.name].tobytes()
    content: bytes = model.SerializeToString()
    return content


def test_an_exported_model_separates(write_onnx: WriteOnnx, noise: Noise) -> None:
    audio = noise(2, 500)
    stems = Separator(write_onnx(gain_model()), "cpu")(audio, 44100)
    np.testing.assert_allclose(stems["vocals"], audio / 2, atol=1e-6)


def test_a_model_for_whole_chunks_has_no_steps(write_onnx: WriteOnnx) -> None:
    model = OnnxModel(write_onnx(gain_model()))
    assert not model.can_stream
    with pytest.raises(ModelError, match="takes whole chunks.*: export it with streaming=True"):
        model.step_engine(CPU)


def test_a_model_for_streams_runs_whole_chunks_too(write_onnx: WriteOnnx) -> None:
    model = OnnxModel(write_onnx(streaming_model()))
    assert model.can_stream
    assert isinstance(model.chunk_engine(CPU), StepsAsEngine)
    assert isinstance(model.step_engine(CPU), StepEngine)


def test_a_model_of_reduced_precision_has_a_twin_in_float32(write_onnx: WriteOnnx) -> None:
    model = OnnxModel(write_onnx(gain_model(MANIFEST.replace(precision="fp16"))))
    assert isinstance(model.chunk_engine(CPU), ReducedPrecisionOrtEngine)


def test_a_graph_without_weights_is_refused_with_a_fix(write_onnx: WriteOnnx) -> None:
    model = OnnxModel(write_onnx(gain_model(location="weights")))
    with pytest.raises(ModelError, match="has no weights: use a checkpoint instead"):
        model.chunk_engine(CPU)


def test_the_graph_is_the_file_with_its_weights(write_onnx: WriteOnnx) -> None:
    path = write_onnx(gain_model())
    graph = OnnxModel(path).graph()
    assert (graph.file.path, graph.manifest, graph.weights) == (path, MANIFEST, None)


def test_a_model_is_checked_when_its_engine_is_loaded(write_onnx: WriteOnnx, stub: Stubs) -> None:
    right, wrong = (MANIFEST.replace(check=make_check(e)) for e in (stub.half(), stub.identity()))
    for _ in range(2):
        OnnxModel(write_onnx(gain_model(right))).chunk_engine(CPU)
    assert len(list((cache_folder() / "verdicts").iterdir())) == 1
    model = OnnxModel(write_onnx(gain_model(wrong)))
    with pytest.raises(DeviceError, match="gain on cpu does not reproduce its check"):
        model.chunk_engine(CPU)
    assert model.chunk_engine(CPU, verify=False).device == CPU


def test_an_export_carries_its_own_check(write_onnx: WriteOnnx) -> None:
    OnnxModel(write_onnx(gain_model())).add_checks()
    assert not cache_folder().exists()


def returning(kind: int, *more: onnx.NodeProto) -> bytes:
    """The model of ``gain_model`` with another type or shape of its output."""
    model = onnx.load_from_string(gain_model())
    model.graph.node.extend(more or [helper.make_node("Cast", ["stems"], ["other"], to=kind)])
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("other", kind, None))
    content: bytes = model.SerializeToString()
    return content


@pytest.mark.parametrize(
    "kind", [TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.INT64, TensorProto.BOOL]
)
def test_a_model_that_returns_another_type_is_refused(write_onnx: WriteOnnx, kind: int) -> None:
    with pytest.raises(ModelError, match="must take and return tensors of float32; other is a"):
        OnnxModel(write_onnx(returning(kind))).chunk_engine(CPU)


def test_a_model_that_returns_text_is_refused(write_onnx: WriteOnnx) -> None:
    content = returning(TensorProto.STRING)
    with pytest.raises(ModelError, match="float32; other is a tensor\\(string\\)"):
        OnnxModel(write_onnx(content)).chunk_engine(CPU)


def test_a_model_that_returns_a_sequence_is_refused(write_onnx: WriteOnnx) -> None:
    model = onnx.load_from_string(gain_model())
    model.graph.node.append(helper.make_node("SequenceConstruct", ["stems"], ["other"]))
    del model.graph.output[:]
    value = helper.make_tensor_sequence_value_info("other", TensorProto.FLOAT, None)
    model.graph.output.append(value)
    with pytest.raises(ModelError, match="float32; other is a seq"):
        OnnxModel(write_onnx(model.SerializeToString())).chunk_engine(CPU)


@pytest.mark.parametrize("operator", ["Shape", "Size", "Flatten", "ReduceSum"])
def test_a_model_that_returns_another_shape_is_refused_when_it_is_loaded(
    write_onnx: WriteOnnx, operator: str
) -> None:
    nodes = (
        helper.make_node(operator, ["stems"], ["n"]),
        helper.make_node("Cast", ["n"], ["other"], to=1),
    )
    path = write_onnx(returning(TensorProto.FLOAT, *nodes))
    with pytest.raises(ModelError, match="gain must return .*, as its manifest says; got"):
        Separator(path, "cpu")


def test_a_model_with_more_outputs_is_refused(write_onnx: WriteOnnx) -> None:
    model = onnx.load_from_string(gain_model())
    model.graph.output.append(helper.make_tensor_value_info("half", TensorProto.FLOAT, None))
    with pytest.raises(ModelError, match="as its io 'spectrum', 1; got 1 and 2"):
        OnnxModel(write_onnx(model.SerializeToString())).chunk_engine(CPU)
