"""Compares the operator's body in ONNX Runtime with the recurrence in float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from torch import Tensor

from bsmamba2.audio.array import Audio
from bsmamba2.audio.snr import snr_db
from bsmamba2_export import body
from bsmamba2_network.scan import recurrence, scan

NAMES = [
    "zxbcdt",
    "conv_weight",
    "conv_bias",
    "dt_bias",
    "A_log",
    "D",
    "norm_weight",
    "conv_state",
    "ssm_state",
]
HEADS, HEAD_DIM, STATE = 3, 4, 8


def model(
    target: str,
    reverse: int,
    outputs: Sequence[str] = ("y", "conv", "ssm"),
    kind: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """Returns a graph of one node with its body."""
    attributes: dict[str, Any] = {
        "head_dim": HEAD_DIM,
        "state_size": STATE,
        "reverse": reverse,
        "epsilon": 1e-5,
    }
    overload = body.STATES if len(outputs) > 1 else ""
    node = helper.make_node(
        body.NAME, NAMES, outputs, domain=body.DOMAIN, overload=overload, **attributes
    )
    ranks = (3, 3, 1, 1, 1, 1, 1, 3, 4)
    inputs = [
        helper.make_tensor_value_info(
            name,
            kind if name == "zxbcdt" else TensorProto.FLOAT,
            [f"{name}{i}" for i in range(rank)],
        )
        for name, rank in zip(NAMES, ranks, strict=True)
    ]
    kinds = {"y": kind}
    results = [
        helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), None)
        for name in outputs
        if name
    ]
    imports = [("", body.OPSET), (body.DOMAIN, 1), (body.CONTRIB, 1)]
    return helper.make_model(
        helper.make_graph([node], "one", inputs, results),
        opset_imports=[helper.make_opsetid(*entry) for entry in imports],
        functions=body.functions(target, HEADS, states=True),
        ir_version=10,
    )


SESSIONS: dict[tuple[str, int], onnxruntime.InferenceSession] = {}


def run(target: str, reverse: int, tensors: Sequence[Tensor]) -> list[Audio]:
    key = target, reverse
    if key not in SESSIONS:
        SESSIONS[key] = onnxruntime.InferenceSession(model(*key).SerializeToString())
    values = [tensor.float().numpy() for tensor in tensors]
    results: list[Audio] = SESSIONS[key].run(None, dict(zip(NAMES, values, strict=True)))
    return results


def tensors(batch: int, length: int, states: int, seed: int) -> list[Tensor]:
    random = torch.Generator().manual_seed(seed)
    d_inner = HEADS * HEAD_DIM
    channels = d_inner + 2 * STATE
    shapes = [
        (batch, length, d_inner + channels + HEADS), (channels, 1, 4), (channels,), (HEADS,),
        (HEADS,), (HEADS,), (d_inner,), (states, channels, 3), (states, HEADS, HEAD_DIM, STATE),
    ]  # fmt: skip
    return [torch.randn(shape, generator=random).double() for shape in shapes]


def recurrent_scan(inputs: list[Tensor], reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
    zxbcdt, conv_weight, conv_bias, dt_bias, A_log, D, norm_weight, conv_state, ssm_state = inputs
    return scan(
        zxbcdt, conv_weight, conv_bias, dt_bias, A_log, D, norm_weight, conv_state, ssm_state,
        HEAD_DIM, STATE, reverse, 1e-5, state_space=recurrence,
    )  # fmt: skip


@given(
    st.sampled_from(["portable", "ort"]),
    st.integers(0, 1),
    st.integers(1, 4),
    st.integers(0, 150),
    st.booleans(),
    st.integers(0, 2**16),
)
@example("portable", 0, 2, 0, False, 0)
@example("ort", 1, 2, 0, False, 0)
@example("portable", 1, 2, 1, True, 0)
@example("ort", 0, 2, 1, True, 0)
@example("portable", 0, 1, 64, True, 1)
@example("portable", 1, 1, 65, False, 1)
@example("portable", 1, 3, 135, False, 65535)
def test_every_body_agrees_with_the_recurrence_to_90_db(
    target: str, reverse: int, batch: int, length: int, one_state: bool, seed: int
) -> None:
    inputs = tensors(batch, length, 1 if one_state else batch, seed)
    actual = run(target, reverse, inputs)
    expected = recurrent_scan(inputs, bool(reverse))
    for one, other in zip(actual, expected, strict=True):
        assert snr_db(other.numpy(), one) >= 90


@given(st.sampled_from(["portable", "ort"]), st.integers(0, 130), st.integers(0, 130))
def test_two_parts_with_the_state_passed_on_equal_the_whole(
    target: str, first: int, second: int
) -> None:
    whole = tensors(2, first + second, 1, seed=first)
    y1, *states = run(target, 0, [whole[0][:, :first], *whole[1:]])
    middle = [torch.from_numpy(state) for state in states]
    y2, *states = run(target, 0, [whole[0][:, first:], *whole[1:7], *middle])
    for one, other in zip(
        [np.concatenate([y1, y2], 1), *states], run(target, 0, whole), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("target", ["portable", "ort"])
def test_steps_after_a_strong_decay_agree_to_100_db(target: str) -> None:
    values = tensors(1, 801, 1, seed=9)
    values[0][..., -HEADS:] = -6.0  # Δ of about 0.002 …
    values[0][:, :640, -HEADS:] = 20.0  # … after 640 steps of 20
    values[3], values[4] = values[3] * 0, torch.full_like(values[4], 16).log()
    actual, expected = run(target, 0, values), recurrent_scan(values, reverse=False)
    for one, other in zip(actual, expected, strict=True):
        assert snr_db(other.float().numpy(), one) >= 100


@pytest.mark.parametrize("target", ["portable", "ort"])
def test_half_precision_input_and_output_are_computed_in_float32(target: str) -> None:
    graph = model(target, 0, kind=TensorProto.FLOAT16)
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    values = [tensor.float().numpy() for tensor in tensors(2, 70, 1, seed=5)]
    feeds = dict(zip(NAMES, values, strict=True)) | {"zxbcdt": values[0].astype(np.float16)}
    y, _, state = session.run(None, feeds)
    exact = run(target, 0, [torch.from_numpy(feeds[name]).float() for name in NAMES])
    assert (y.dtype, state.dtype) == (np.float16, np.float32)
    np.testing.assert_allclose(state, exact[2], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(y, exact[0].astype(np.float16))


@pytest.mark.parametrize("target", ["portable", "ort"])
def test_a_body_without_states_gives_the_same_y_with_fewer_nodes(target: str) -> None:
    graph = model(target, 1, outputs=["y"])
    values = [tensor.float().numpy() for tensor in tensors(2, 70, 1, seed=6)]
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    (y,) = session.run(None, dict(zip(NAMES, values, strict=True)))
    np.testing.assert_array_equal(y, run(target, 1, [torch.from_numpy(v) for v in values])[0])
    plain, stateful = (f for f in graph.functions if f.name == body.NAME)
    assert len(plain.node) < len(stateful.node)


def test_the_portable_body_uses_only_standard_operators() -> None:
    domains = {n.domain for f in body.functions("portable", HEADS, states=True) for n in f.node}
    assert domains == {"", body.DOMAIN}
