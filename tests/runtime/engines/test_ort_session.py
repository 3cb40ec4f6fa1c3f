"""Sessions of ONNX Runtime: refused models, and errors that say what a device is missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from bsmamba2 import DeviceError, ModelError
from bsmamba2.devices import nvidia, products
from bsmamba2.devices.device import CPU, Device, choose
from bsmamba2.devices.nvidia import Card, Driver
from bsmamba2.engines import ort_session
from bsmamba2.engines.ort_import import gpu_install_command, import_onnxruntime
from bsmamba2.engines.ort_session import BACKENDS, PROVIDERS, first_line, open_session, software
from bsmamba2.formats.onnx_file import OnnxFile, read_onnx
from bsmamba2.installation import install_command, version
from bsmamba2.models.graph import shipped_graphs
from support.fixtures import WriteOnnx
from support.models import MANIFEST, gain_model, random_weights

CARD = Card("Fast Card", (9, 0), 80 << 30)
SetMachine = Callable[..., None]


@pytest.fixture
def set_machine(monkeypatch: pytest.MonkeyPatch) -> SetMachine:
    """``set_machine(cards=1, cuda=(13, 0), providers=("cuda",))`` mocks driver and ONNX Runtime.

    The ONNX Runtime is built for CUDA 13.0.
    """

    def mock(
        cards: int | None = 1,
        cuda: tuple[int, int] = (13, 0),
        providers: Sequence[str] = ("cuda",),
    ) -> None:
        driver = None if cards is None else Driver((CARD,) * cards, cuda, "580.65.06")
        ort = import_onnxruntime()
        available = [PROVIDERS[kind] for kind in (*providers, "cpu")]
        monkeypatch.setattr(nvidia, "driver", lambda: driver)
        monkeypatch.setattr(ort, "cuda_version", "13.0")
        monkeypatch.setattr(ort, "get_available_providers", lambda: available)

    return mock


def graph(name: str) -> OnnxFile:
    return next(graph for graph in shipped_graphs() if graph.path.stem == name)


def test_auto_chooses_the_card_where_everything_for_it_is_installed(
    set_machine: SetMachine,
) -> None:
    set_machine()
    assert choose("auto", BACKENDS) == Device("cuda", 0)


@pytest.mark.parametrize(
    "machine", [{"cards": None}, {"cards": 0}, {"providers": ()}, {"cuda": (12, 4)}]
)
def test_auto_chooses_the_cpu_where_anything_for_the_card_is_missing(
    set_machine: SetMachine, machine: dict[str, Any]
) -> None:
    set_machine(**machine)
    assert choose("auto", BACKENDS) == CPU


@pytest.mark.parametrize(
    ("machine", "requested", "message"),
    [
        (
            {"cards": None},
            "cuda",
            "there is no NVIDIA driver: install one, or use --device cpu",
        ),
        ({"cards": None}, "tensorrt:1", "there is no NVIDIA driver"),
        ({"cards": 1}, "cuda:1", "there is no card 1: choose from cuda:0 Fast Card"),
        ({"cuda": (12, 4)}, "cuda", "CUDA 13.0 is needed, and driver 580.65.06 runs up to"),
        (
            {"providers": ()},
            "cuda",
            "ONNX Runtime for NVIDIA cards is not installed; run: " + gpu_install_command(),
        ),
        ({}, "tensorrt", 'which is not installed; run: pip install "tensorrt-cu13>=10,<11"'),
    ],
)
def test_a_requested_device_that_is_missing_is_an_error_with_a_fix(
    set_machine: SetMachine, machine: dict[str, Any], requested: str, message: str
) -> None:
    set_machine(**machine)
    with pytest.raises(DeviceError) as caught:
        choose(requested, BACKENDS)
    assert str(caught.value).startswith(f"device '{requested}' cannot be used: ")
    assert message in str(caught.value)


def test_a_missing_library_of_cuda_is_named_with_a_fix(
    set_machine: SetMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_machine()
    monkeypatch.setattr(ort_session, "missing_library", lambda path: "libcudnn.so.9")
    with pytest.raises(DeviceError) as caught:
        choose("cuda", BACKENDS)
    assert "libcudnn.so.9 of CUDA or cuDNN is not found" in str(caught.value)
    assert str(caught.value).endswith(f"; run: {install_command('gpu')}")


def test_a_session_that_fell_back_to_the_cpu_is_an_error(write_onnx: WriteOnnx) -> None:
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        pytest.raises(DeviceError, match="could not load its CUDAExecutionProvider: run pip"),
    ):
        open_session(read_onnx(write_onnx(gain_model())), Device("cuda"))


def test_bf16_is_refused_on_the_cpu_with_a_fix(write_onnx: WriteOnnx) -> None:
    file = read_onnx(write_onnx(gain_model(MANIFEST.replace(precision="bf16"))))
    with pytest.raises(DeviceError, match=r"use a GPU, or export .* --precision fp32"):
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
