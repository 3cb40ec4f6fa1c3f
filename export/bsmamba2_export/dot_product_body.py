"""HT Demucs' attention in plain ONNX operators: the body of ``bsmamba2::dot_product_attention``.

``portable`` has standard operators and holds all scores, 231 MB at the published sizes. ``ort`` has
ONNX Runtime's fused operator, which holds a tile of them.
"""

# mypy: ignore-errors
# Inside @script, Python is read as ONNX: a name is a tensor, a call is an operator.

from __future__ import annotations

import onnx
from onnxscript import script
from onnxscript.onnx_opset import opset20 as op
from onnxscript.values import Opset

from bsmamba2_export.body import CONTRIB, DOMAIN

NAME = "dot_product_attention"
INPUTS = ("q", "k", "v")

_ours = Opset(DOMAIN, 1)
_contrib = Opset(CONTRIB, 1)


@script(_ours, default_opset=op)
def dot_product_attention(q, k, v, heads: int):
    """softmax(q·kᵀ / √P)·v, (b, H, L, P) to the same."""
    scale = op.Sqrt(op.Cast(op.Shape(q, start=3), to=1))
    scores = op.MatMul(q / scale, op.Transpose(k, perm=[0, 1, 3, 2]))
    return op.MatMul(op.Softmax(scores, axis=-1), v)


@script(_ours, default_opset=op)
def joined(x):
    """(b, H, L, P) to (b, L, H·P)."""
    return op.Reshape(op.Transpose(x, perm=[0, 2, 1, 3]), op.Constant(value_ints=[0, 0, -1]))


@script(_ours, default_opset=op)
def dot_product_attention_contrib(q, k, v, heads: int):
    """The same with ONNX Runtime's operator, which takes (b, L, H·P)."""
    y = _contrib.MultiHeadAttention(
        _ours.joined(q), _ours.joined(k), _ours.joined(v), num_heads=heads
    )
    count = op.Reshape(op.Constant(value_int=heads), op.Constant(value_ints=[1]))
    same, rest = op.Constant(value_ints=[0, 0]), op.Constant(value_ints=[-1])
    y = op.Reshape(y, op.Concat(same, count, rest, axis=0))
    return op.Transpose(y, perm=[0, 2, 1, 3])


def functions(target: str) -> list[onnx.FunctionProto]:
    """Returns the functions that define the node for one target, ``portable`` or ``ort``."""
    if target == "ort":
        fused = dot_product_attention_contrib.to_function_proto()
        fused.name = NAME
        return [fused, joined.to_function_proto()]
    return [dot_product_attention.to_function_proto()]
