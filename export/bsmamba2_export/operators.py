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

import bsmamba2_network.compact  # noqa: F401 - with the network, registers PyTorch's operators
from bsmamba2.formats.checkpoint import FIRST_MIXER, MARK
from bsmamba2_export import attention_body, body, dot_product_body, lstm_body, residual_body

PROJECTION = f"{FIRST_MIXER}in_proj.weight"

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


def _residual_norm(*arguments: Any) -> Any:
    *tensors, epsilon, next_epsilon = arguments
    return _ours.residual_norm(*tensors, epsilon=epsilon, next_epsilon=next_epsilon)


TRANSLATIONS: dict[Any, Callable[..., Any]] = {
    torch.ops.bsmamba2.mamba2_scan.default: _scan,
    torch.ops.bsmamba2.rotary_attention.default: _attention,
    torch.ops.aten.scaled_dot_product_attention.default: _dot_product_attention,
    torch.ops.bsmamba2.bidirectional_lstm.default: _lstm,
    torch.ops.bsmamba2.residual_norm.default: _residual_norm,
}
"""The ONNX node of each of our PyTorch operators."""

NARROW = {
    body.NAME: ((0,), 0),
    attention_body.NAME: ((0,), 0),
    residual_body.NAME: (residual_body.NARROW_INPUTS, 1),
}
"""The inputs and the output of our nodes that may be narrow; see
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
        rows = next(v.dims[0] for v in model.graph.initializer if v.name == PROJECTION)
        padded = residual_body.NAME in kinds and rows % 8 != 0
        found += body.functions(target, heads, states=states, padded=padded)
    if attention_body.NAME in kinds:
        found += attention_body.functions(target, precision, emulate=emulate)
    if dot_product_body.NAME in kinds:
        found += dot_product_body.functions(target)
    if lstm_body.NAME in kinds:
        found += lstm_body.functions()
    if residual_body.NAME in kinds:
        found += residual_body.functions()
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
    single = defs.OpSchema.FormalParameterOption.Single
    _register(
        residual_body.NAME,
        residual_body.INPUTS,
        [("unit", "T", single)],
        {"epsilon": "FLOAT", "next_epsilon": "FLOAT"},
        narrow=residual_body.NARROW_INPUTS,
        first="tensor(float)",
    )


def _register(
    name: str,
    inputs: tuple[str, ...],
    results: list[tuple[str, str, Any]],
    kinds: dict[str, str],
    *,
    narrow: tuple[int, ...] = (0,),
    first: str = "T",
) -> None:
    """Registers a node whose inputs ``narrow`` have one type, T, and the rest float32.

    ``first`` is the type of its first output; ``results`` are the others.
    """
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
                schema.FormalParameter(key, tokens if i in narrow else exact)
                for i, key in enumerate(inputs)
            ],
            outputs=[
                schema.FormalParameter("y", first),
                *(schema.FormalParameter(k, t, param_option=option) for k, t, option in results),
            ],
            type_constraints=[(tokens, types, "tokens")],
            attributes=[schema.Attribute(k, getattr(schema.AttrType, v)) for k, v in kinds.items()],
        )
    )
