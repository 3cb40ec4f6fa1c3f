"""Sessions of ONNX Runtime: shared weights, and models that are refused."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from bsmamba2 import DeviceError, ModelError
from bsmamba2.devices import products
from bsmamba2.devices.device import CPU, Device
from bsmamba2.engines.ort_import import import_onnxruntime
from bsmamba2.engines.ort_session import first_line, open_session, software
from bsmamba2.formats.onnx_file import OnnxFile, read_onnx
from bsmamba2.installation import version
from bsmamba2.models.graph import shipped_graphs
from support.fixtures import WriteOnnx
from support.models import MANIFEST, gain_model, random_weights


def graph(name: str) -> OnnxFile:
    return next(graph for graph in shipped_graphs() if graph.path.stem == name)


def test_a_session_that_fell_back_to_the_cpu_is_an_error(write_onnx: WriteOnnx) -> None:
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        pytest.raises(DeviceError, match="could not load its CUDAExecutionProvider: run pip"),
    ):
        open_session(read_onnx(write_onnx(gain_model())), Device("cuda"))


def test_bf16_is_refused_on_the_cpu_with_a_fix(write_onnx: WriteOnnx) -> None:
    file = read_onnx(write_onnx(gain_model(MANIFEST.replace(precision="bf16"))))
    with pytest.raises(DeviceError, match=r"use a GPU, or export .* precision='fp32'"):
        open_session(file, CPU)


def test_a_graph_that_onnxruntime_refuses_is_an_error_of_one_line(write_onnx: WriteOnnx) -> None:
    broken = onnx.load_from_string(gain_model())
    broken.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(ModelError, match="ONNX Runtime refuses model.onnx: ") as caught:
        open_session(read_onnx(write_onnx(broken.SerializeToString())))
    assert "\n" not in str(caught.value)


def test_onnxruntime_refuses_external_data_of_attributes(write_onnx: WriteOnnx) -> None:
    """The runtime does not check the attributes of nodes, and relies on this."""
    model = onnx.load_from_string(gain_model())
    factor = model.graph.initializer[0]
    factor.ClearField("raw_data")
    factor.data_location = TensorProto.EXTERNAL
    factor.external_data.add(key="location", value="../secret")
    constant = helper.make_node("Constant", [], ["factor"], value=factor)
    del model.graph.initializer[0]
    model.graph.node.insert(0, constant)
    path = write_onnx(model.SerializeToString())
    (path.parents[1] / "secret").write_bytes(bytes(4))
    with pytest.raises(ModelError, match="ONNX Runtime refuses"):
        open_session(read_onnx(path))


def test_a_graph_without_its_weights_is_refused_with_a_fix() -> None:
    weights = random_weights("tiny")
    weights.popitem()
    for incomplete in (None, weights):
        with pytest.raises(ModelError, match="tiny.onnx has no weights: use a checkpoint instead"):
            open_session(graph("tiny"), CPU, incomplete)


def test_sessions_compute_with_the_caller_s_weights_and_hold_no_copy() -> None:
    weights = random_weights("tiny")
    session = open_session(graph("tiny"), CPU, weights)
    spectrum = np.ones((1, 2, 3, 1025, 2), np.float32)
    (before,) = session.run(None, {"spectrum": spectrum})
    for values in weights.values():
        values[...] = 0
    (after,) = session.run(None, {"spectrum": spectrum})
    assert before.any()
    assert not np.array_equal(before, after)


def test_the_software_is_listed_with_its_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    known = software()
    assert (known["bsmamba2"], len(known["cuda_kernels"])) == (version(), 64)
    assert known["onnxruntime"] == import_onnxruntime().__version__
    monkeypatch.setenv("BSMAMBA2_KERNEL", "off")
    assert (software()["kernel"], software()["instructions"]) == ("plain operators", "")


def test_the_first_line_of_an_error_omits_the_code_of_onnxruntime() -> None:
    error = RuntimeError("[ONNXRuntimeError] : 10 : INVALID_GRAPH : no such node\nmore")
    assert first_line(error) == "no such node"


@pytest.mark.parametrize("name", ["tiny", "tiny-streaming"])
def test_a_session_computes_with_the_arrays_that_it_is_given(name: str) -> None:
    """So two sessions that are given the same arrays share them."""
    file, weights = graph(name), random_weights()
    session = open_session(file, weights=weights)
    inputs = {value.name: value for value in session.get_inputs()}
    states = {state.name: np.zeros((1, *state.shape[1:]), "f4") for state in file.manifest.states}
    spectrum = np.ones((1, 2, 3, file.manifest.bins, 2), np.float32)
    feeds = states | {name: spectrum for name in inputs if name not in states}
    before = session.run(None, feeds)[0]
    for array in weights.values():
        array *= 0
    assert before.any()
    assert not np.array_equal(session.run(None, feeds)[0], before)


def test_sessions_with_packed_weights_share_one_pool_of_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At `fast` the results may differ: see the products of this machine."""
    file, weights = graph("tiny"), random_weights("tiny")
    spectrum = {"spectrum": np.ones((1, 2, 3, 1025, 2), np.float32)}
    expected = open_session(file, CPU, weights).run(None, spectrum)[0]
    monkeypatch.setattr(products, "products", lambda speed: "bf16 (amx)")
    for _ in range(2):
        session = open_session(file, CPU, weights, speed="fast")
        np.testing.assert_allclose(session.run(None, spectrum)[0], expected, rtol=0.5, atol=1e-2)
