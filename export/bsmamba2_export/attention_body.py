"""Attention in plain ONNX operators: the specification of ``bsmamba2::rotary_attention``.

The steps and names are those of :mod:`bsmamba2_network.attention`. Every target has the node; only
its body differs. ``portable`` has standard operators and holds all scores. ``ort`` has ONNX
Runtime's fused operators, which hold a tile of them.

Rotation, softmax and gates are float32 in any precision; products are in the type of ``qkv``.
"""

# mypy: ignore-errors
# Inside @script, Python is read as ONNX: a name is a tensor, a call is an operator.

from __future__ import annotations

import onnx
from onnxscript import script
from onnxscript.onnx_opset import opset20 as op
from onnxscript.values import Opset

from bsmamba2_export.body import CONTRIB, DOMAIN

NAME = "rotary_attention"
INPUTS = ("qkv", "gates", "freqs")

_ours = Opset(DOMAIN, 1)
_contrib = Opset(CONTRIB, 1)


@script(_ours, default_opset=op)
def angles(qkv, freqs):
    """The angle of every token and pair of features: (L, P / 2)."""
    length = op.Squeeze(op.Shape(qkv, start=1, end=2))
    step = op.Range(op.Constant(value_int=0), length, op.Constant(value_int=1))
    return op.Unsqueeze(op.Cast(step, to=1), op.Constant(value_ints=[1])) * freqs


@script(_ours, default_opset=op)
def rotate(x, angles):
    """Step 1: x (b, L, H, P) in float32, each pair of features turned by its token's angle."""
    last = op.Constant(value_ints=[-1])
    head = op.Constant(value_ints=[1])
    pairs = op.Concat(
        op.Shape(x, start=0, end=3), op.Shape(angles, start=1), op.Constant(value_ints=[2]), axis=0
    )
    a, b = op.Split(op.Reshape(x, pairs, allowzero=1), num_outputs=2, axis=4)
    cos = op.Unsqueeze(op.Unsqueeze(op.Cos(angles), head), last)  # (L, 1, P / 2, 1)
    sin = op.Unsqueeze(op.Unsqueeze(op.Sin(angles), head), last)
    turned = op.Concat(a * cos - b * sin, b * cos + a * sin, axis=4)
    return op.Reshape(turned, op.Shape(x), allowzero=1)


@script(_ours, default_opset=op)
def gate(y, gates):
    """Step 3: y (b, L, H·P) in the type of qkv, times sigmoid(gates) per head."""
    tokens = op.Concat(op.Shape(gates), op.Constant(value_ints=[-1]), axis=0)
    heads = op.Reshape(y, tokens)  # (b, L, H, P)
    opened = op.CastLike(op.Sigmoid(gates), y)
    gated = heads * op.Unsqueeze(opened, op.Constant(value_ints=[-1]))
    return op.Reshape(gated, op.Shape(y), allowzero=1)


@script(_ours, default_opset=op)
def rotary_attention(qkv, gates, freqs, heads: int):
    """Steps 1 to 3; arguments and result as bsmamba2_network.attention.rotary_attention."""
    one = op.Constant(value_ints=[1])
    H = op.Reshape(op.Constant(value_int=heads), one)
    P = op.Constant(value_ints=[2]) * op.Shape(freqs)
    tokens = op.Concat(op.Shape(qkv, start=0, end=2), H, P, axis=0)
    q, k, v = op.Split(qkv, num_outputs=3, axis=2)
    turns = _ours.angles(qkv, freqs)
    q = _ours.rotate(op.Reshape(op.Cast(q, to=1), tokens, allowzero=1), turns)
    k = _ours.rotate(op.Reshape(op.Cast(k, to=1), tokens, allowzero=1), turns)
    # Queries are scaled before they are rounded, so that narrow scores do not overflow.
    q = q / op.Sqrt(op.Cast(P, to=1))
    q = op.Transpose(op.CastLike(q, qkv), perm=[0, 2, 1, 3])  # (b, H, L, P)
    k = op.Transpose(op.CastLike(k, qkv), perm=[0, 2, 3, 1])
    v = op.Transpose(op.Reshape(v, tokens, allowzero=1), perm=[0, 2, 1, 3])
    weights = op.Softmax(op.Cast(op.MatMul(q, k), to=1), axis=-1)
    y = op.Transpose(op.MatMul(op.CastLike(weights, qkv), v), perm=[0, 2, 1, 3])
    joined = op.Concat(op.Shape(qkv, start=0, end=2), H * P, axis=0)
    return _ours.gate(op.Reshape(y, joined, allowzero=1), gates)


@script(_ours, default_opset=op)
def rotary_attention_contrib(qkv, gates, freqs, heads: int):
    """The same with ONNX Runtime's operators, which take (b, L, H·P) as it lies in memory."""
    q, k, v = op.Split(qkv, num_outputs=3, axis=2)
    turns = _ours.angles(qkv, freqs)
    cos, sin = op.Cos(turns), op.Sin(turns)
    first = op.Constant(value_ints=[0])  # the position of the first token
    q = _contrib.RotaryEmbedding(op.Cast(q, to=1), first, cos, sin, interleaved=1)
    k = _contrib.RotaryEmbedding(op.Cast(k, to=1), first, cos, sin, interleaved=1)
    y = _contrib.MultiHeadAttention(op.CastLike(q, qkv), op.CastLike(k, qkv), v, num_heads=heads)
    return _ours.gate(y, gates)


def functions(target: str) -> list[onnx.FunctionProto]:
    """Returns the functions that define the node for one target, ``portable`` or ``ort``."""
    parts = [angles.to_function_proto(), gate.to_function_proto()]
    if target == "ort":
        fused = rotary_attention_contrib.to_function_proto()
        fused.name = NAME
        return [fused, *parts]
    return [rotary_attention.to_function_proto(), rotate.to_function_proto(), *parts]
