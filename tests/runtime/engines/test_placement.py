"""Nodes that land on another device than the one asked for are an error."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from bsmamba2 import DeviceError
from bsmamba2.devices.device import Device
from bsmamba2.engines.ort_package import import_onnxruntime
from bsmamba2.engines.placement import RECORD, require_placement

CUDA = Device("cuda", 0)


@pytest.fixture(scope="module")
def session():
    """Of ONNX Runtime's own, on the CPU: a product, and the arithmetic of its shape."""
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


def recorded(*nodes):
    """A session that says ``(provider, domain, operator)`` of each node."""
    parts = [
        SimpleNamespace(
            ep_name=provider,
            get_nodes=lambda d=domain, o=op: [SimpleNamespace(domain=d, op_type=o)],
        )
        for provider, domain, op in nodes
    ]
    return SimpleNamespace(get_provider_graph_assignment_info=lambda: parts)


def test_a_model_on_its_own_device_is_well_placed(session):
    require_placement(session, Device("cpu"), "CPUExecutionProvider")


def test_products_on_the_cpu_are_not_a_model_on_a_gpu(session):
    with pytest.raises(DeviceError, match=r"\(1 MatMul on CPUExecutionProvider\).*--device cpu"):
        require_placement(session, CUDA, "CUDAExecutionProvider")


def test_shape_arithmetic_may_stay_on_the_cpu():
    placed = recorded(("CPUExecutionProvider", "", "Shape"), ("CUDAExecutionProvider", "", "Conv"))
    require_placement(placed, CUDA, "CUDAExecutionProvider")


@pytest.mark.parametrize(
    "node",
    [
        ("CPUExecutionProvider", "bsmamba2", "mamba2_scan"),
        ("CPUExecutionProvider", "com.microsoft", "Mul"),
        ("CUDAExecutionProvider", "", "Mul"),
    ],
)
def test_what_is_not_shape_arithmetic_of_the_standard_may_not(node):
    with pytest.raises(DeviceError, match=f"1 {node[2]} on {node[0]}"):
        require_placement(recorded(node), Device("tensorrt"), "TensorrtExecutionProvider")
