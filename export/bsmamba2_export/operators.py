"""Our operators in ONNX: the nodes that they become, and the bodies of these nodes.

A network calls a registered PyTorch operator, which becomes one node of the domain ``bsmamba2``
with the same name. Its body consists of standard operators; a target may replace the body.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
import torch
from onnx import ModelProto, defs
from onnxscript.values import Opset

import bsmamba2_network  # noqa: F401 - registers PyTorch's operators
from bsmamba2.formats.checkpoint import MARK
from bsmamba2_export import attention_body, body, dot_product_body, lstm_body

_ours = Opset(body.DOMAIN, 1)
_SCAN_INPUTS = (
    "zxbcdt", "conv_weight", "conv_bias", "dt_bias", "A_log", "D", "norm_weight", "conv_state",
    "ssm_state",
)  # fmt: skip


def _scan(*arguments: Any) -> Any:
    """Translates PyTorch's operator to the ONNX node: tensors as inputs, numbers as attributes."""
    tensors, (head_dim, state_size, reverse, epsilon) = arguments[:9], arguments[9:]
    return _ours.mamba2_scan(
        *tensors,
        head_dim=head_dim,
        state_size=state_size,
        reverse=int(reverse),
        epsilon=epsilon,
    )


def _attention(qkv: Any, gates: Any, freqs: Any, heads: int) -> Any:
    return _ours.rotary_attention(qkv, gates, freqs, heads=heads)


def _dot_product_attention(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> Any:
    return _ours.dot_product_attention(q, k, v, heads=int(q.shape[1]))


def _lstm(x: Any, weights: Any) -> Any:
    return _ours.bidirectional_lstm(x, *weights, hidden=int(weights[1].shape[1]))


TRANSLATIONS: dict[Any, Callable[..., Any]] = {
    torch.ops.bsmamba2.mamba2_scan.default: _scan,
    torch.ops.bsmamba2.rotary_attention.default: _attention,
    torch.ops.aten.scaled_dot_product_attention.default: _dot_product_attention,
    torch.ops.bsmamba2.bidirectional_lstm.default: _lstm,
}
"""The ONNX node of each of our PyTorch operators."""

TAKE_TOKENS = (body.NAME, attention_body.NAME)
"""The nodes whose first input and first output may be narrow; see
:mod:`bsmamba2_export.precision`."""


def functions(
    model: ModelProto, target: str, precision: str = "fp32", *, emulate: bool = False
) -> list[onnx.FunctionProto]:
    """Returns the bodies of our nodes in a graph.

    Args:
        model: the graph.
        target: ``portable`` or ``ort``.
        precision, emulate: as for :func:`bsmamba2_export.precision.lower`.
    """
    nodes = [node for node in model.graph.node if node.domain == body.DOMAIN]
    kinds = {node.op_type for node in nodes}
    found: list[onnx.FunctionProto] = []
    if not kinds.isdisjoint({body.NAME, body.MIXER}):
        heads = next(value.dims[0] for value in model.graph.initializer if value.name == MARK)
        states = any(node.overload == body.STATES for node in nodes)
        found += body.functions(target, heads, states=states)
    if attention_body.NAME in kinds:
        found += attention_body.functions(target, precision, emulate=emulate)
    if dot_product_body.NAME in kinds:
        found += dot_product_body.functions(target)
    if lstm_body.NAME in kinds:
        found += lstm_body.functions()
    return found


def register_schemas() -> None:
    """Registers the signatures of our nodes with the onnx package, once per process."""
    exact, optional = "tensor(float)", defs.OpSchema.FormalParameterOption.Optional
    states = [(f"next_{name}", exact, optional) for name in _SCAN_INPUTS[-2:]]
    _register(
        body.NAME,
        _SCAN_INPUTS,
        states,
        {"head_dim": "INT", "state_size": "INT", "reverse": "INT", "epsilon": "FLOAT"},
    )
    _register(attention_body.NAME, attention_body.INPUTS, [], {"heads": "INT"})
    _register(dot_product_body.NAME, dot_product_body.INPUTS, [], {"heads": "INT"})
    _register(lstm_body.NAME, lstm_body.INPUTS, [], {"hidden": "INT"})


def _register(
    name: str, inputs: tuple[str, ...], results: list[tuple[str, str, Any]], kinds: dict[str, str]
) -> None:
    """Registers a node whose first input and first output have one type, and the rest float32."""
    if defs.has(name, domain=body.DOMAIN):
        return
    schema = defs.OpSchema
    tokens, exact = "T", "tensor(float)"
    types = ["tensor(float)", "tensor(float16)", "tensor(bfloat16)"]
    defs.register_schema(
        schema(
            name,
            body.DOMAIN,
            1,
            inputs=[
                schema.FormalParameter(key, exact if i else tokens) for i, key in enumerate(inputs)
            ],
            outputs=[
                schema.FormalParameter("y", tokens),
                *(schema.FormalParameter(k, t, param_option=option) for k, t, option in results),
            ],
            type_constraints=[(tokens, types, f"{inputs[0]} and y")],
            attributes=[schema.Attribute(k, getattr(schema.AttrType, v)) for k, v in kinds.items()],
        )
    )
