"""A model must run on the requested device, apart from the arithmetic of its shapes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from bsmamba2 import DeviceError
from bsmamba2.devices.device import CPU, Device
from bsmamba2.engines.ort_import import import_onnxruntime
from bsmamba2.engines.placement import RECORD, require_placement

CUDA = Device("cuda", 0)


@pytest.fixture(scope="module")
def session() -> Any:
    """A session of ONNX Runtime on the CPU with a product and the arithmetic of its shape."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("Shape", ["y"], ["sizes"]),
        helper.make_node("Mul", ["sizes", "sizes"], ["squares"]),
        helper.make_node("Reshape", ["y", "minus"], ["flat"]),
    ]
    weights = [
        helper.make_tensor("w", TensorProto.FLOAT, [2, 2], np.eye(2).ravel()),
        helper.make_tensor("minus", TensorProto.INT64, [1], [-1]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])],
        [
            helper.make_tensor_value_info("flat", TensorProto.FLOAT, ["m"]),
            helper.make_tensor_value_info("squares", TensorProto.INT64, [2]),
        ],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.add_session_config_entry(RECORD, "1")
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def mock_session(*nodes: tuple[str, str, str]) -> SimpleNamespace:
    """A session with one node for each ``(provider, domain, operator)``."""
    parts = [
        SimpleNamespace(
            ep_name=provider,
            get_nodes=lambda d=domain, o=op: [SimpleNamespace(domain=d, op_type=o)],
        )
        for provider, domain, op in nodes
    ]
    return SimpleNamespace(get_provider_graph_assignment_info=lambda: parts)


def test_a_model_on_the_requested_device_is_accepted(session: Any) -> None:
    require_placement(session, CPU, "CPUExecutionProvider")


def test_products_on_the_cpu_are_refused_for_a_gpu(session: Any) -> None:
    with pytest.raises(DeviceError, match=r"\(1 MatMul on CPUExecutionProvider\).*device='cpu'"):
        require_placement(session, CUDA, "CUDAExecutionProvider")


def test_shape_arithmetic_may_stay_on_the_cpu() -> None:
    placed = mock_session(
        ("CPUExecutionProvider", "", "Shape"), ("CUDAExecutionProvider", "", "Conv")
    )
    require_placement(placed, CUDA, "CUDAExecutionProvider")


@pytest.mark.parametrize(
    "node",
    [
        ("CPUExecutionProvider", "bsmamba2", "mamba2_scan"),
        ("CPUExecutionProvider", "com.microsoft", "Mul"),
        ("CUDAExecutionProvider", "", "Mul"),
    ],
)
def test_custom_operators_and_other_providers_are_refused(node: tuple[str, str, str]) -> None:
    with pytest.raises(DeviceError, match=f"1 {node[2]} on {node[0]}"):
        require_placement(mock_session(node), Device("tensorrt"), "TensorrtExecutionProvider")
