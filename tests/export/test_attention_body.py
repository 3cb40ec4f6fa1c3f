"""The attention node's bodies in ONNX agree with PyTorch's operator, for every target."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from bsmamba2.audio.array import Audio
from bsmamba2.audio.snr import snr_db
from bsmamba2_export import attention_body, operators
from bsmamba2_network.attention import attention

HEADS, PAIRS = 2, 4
WIDTH = 3 * HEADS * 2 * PAIRS
TYPES = {"fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16}


def inputs(batch: int, length: int) -> dict[str, Audio]:
    rng = np.random.default_rng(0)
    shapes = {"qkv": (batch, length, WIDTH), "gates": (batch, length, HEADS), "freqs": (PAIRS,)}
    return {name: rng.normal(size=s).astype(np.float32) for name, s in shapes.items()}


def reference(values: dict[str, Audio]) -> Audio:
    qkv, gates, freqs = (torch.from_numpy(value) for value in values.values())
    expected: Audio = attention(qkv, gates, freqs, HEADS).numpy()
    return expected


def node_alone(target: str, precision: str = "fp32", *, emulate: bool = False) -> Any:
    """A session of a graph that is one node with the body of a target."""
    kind = TYPES["fp32" if emulate else precision]
    node = helper.make_node(
        attention_body.NAME, attention_body.INPUTS, ["y"], domain="bsmamba2", heads=HEADS
    )
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node],
        "attention",
        [
            value("qkv", kind, ["b", "l", WIDTH]),
            value("gates", TensorProto.FLOAT, ["b", "l", HEADS]),
            value("freqs", TensorProto.FLOAT, [PAIRS]),
        ],
        [value("y", kind, ["b", "l", WIDTH // 3])],
    )
    domains = {"": 20, "bsmamba2": 1, "com.microsoft": 1}
    model = helper.make_model(
        graph,
        functions=attention_body.functions(target, precision, emulate=emulate),
        opset_imports=[helper.make_opsetid(*entry) for entry in domains.items()],
        ir_version=10,
    )
    operators.register_schemas()
    onnx.checker.check_model(model)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )


@pytest.mark.parametrize("target", ["portable", "ort"])
def test_a_session_agrees_with_pytorch_at_every_length(target: str) -> None:
    session = node_alone(target)
    for batch, length in ((1, 1), (3, 2), (2, 65), (1, 300), (5, 64)):  # one session: no cache
        values = inputs(batch, length)
        expected = reference(values)
        assert snr_db(expected, session.run(None, values)[0]) >= 110


@pytest.mark.parametrize("shift", [3.0, 1000.0])
def test_the_softmax_survives_large_scores(shift: float) -> None:
    values = inputs(1, 20)
    values["qkv"] *= shift
    for target in ("portable", "ort"):
        assert np.isfinite(node_alone(target).run(None, values)[0]).all()


@pytest.mark.parametrize("target", ["portable", "ort"])
def test_narrow_tokens_give_narrow_results_whose_error_the_emulation_predicts(target: str) -> None:
    values = inputs(2, 300)
    values["qkv"] = values["qkv"].astype(np.float16).astype(np.float32)
    expected = reference(values)
    half = values | {"qkv": values["qkv"].astype(np.float16)}
    actual = node_alone(target, "fp16").run(None, half)[0]
    assert actual.dtype == np.float16
    emulated = node_alone(target, "fp16", emulate=True).run(None, values)[0]
    errors = [snr_db(expected, y.astype(np.float32)) for y in (actual, emulated)]
    assert min(errors) >= 55  # 11 bits at every rounding
    assert abs(errors[0] - errors[1]) <= 10


def test_each_target_has_only_its_own_operators() -> None:
    for target, domains in (
        ("portable", {"", "bsmamba2"}),
        ("ort", {"", "bsmamba2", "com.microsoft"}),
    ):
        functions = attention_body.functions(target)
        assert {node.domain for f in functions for node in f.node} == domains
        called = {n.op_type for f in functions for n in f.node if n.domain == "bsmamba2"}
        assert called | {attention_body.NAME} == {f.name for f in functions}
