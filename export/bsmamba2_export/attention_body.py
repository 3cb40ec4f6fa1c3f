"""Attention in plain ONNX operators: the specification of ``bsmamba2::rotary_attention``.

The steps and names are those of :mod:`bsmamba2_network.attention`. Every target has the node; only
its body differs. ``portable`` has standard operators and holds all scores. ``ort`` has ONNX
Runtime's fused operators, which hold a tile of them. On CUDA those take up to 65,535 sequences per
call: along the bands, that is batch times frames. One chunk has fewer.

Rotation, softmax and gates are float32 in any precision. In fp16 and in bf16 the two products are
float16, because ONNX Runtime has no bf16 attention, and bf16 would round the scores to two digits.
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
    tokens, pair = op.Shape(x, start=0, end=3), op.Constant(value_ints=[2])
    pairs = op.Concat(tokens, op.Shape(angles, start=1), pair, axis=0)
    a, b = op.Split(op.Reshape(x, pairs, allowzero=1), num_outputs=2, axis=4)
    cos = op.Unsqueeze(op.Unsqueeze(op.Cos(angles), head), last)  # (L, 1, P / 2, 1)
    sin = op.Unsqueeze(op.Unsqueeze(op.Sin(angles), head), last)
    turned = op.Concat(a * cos - b * sin, b * cos + a * sin, axis=4)
    return op.Reshape(turned, op.Shape(x), allowzero=1)


@script(_ours, default_opset=op)
def gate(y, gates, qkv):
    """Step 3: y (b, L, H·P) times sigmoid(gates) per head, in the type of qkv."""
    tokens = op.Concat(op.Shape(gates), op.Constant(value_ints=[-1]), axis=0)
    heads = op.Reshape(y, tokens)  # (b, L, H, P)
    opened = op.CastLike(op.Sigmoid(gates), y)
    gated = heads * op.Unsqueeze(opened, op.Constant(value_ints=[-1]))
    return op.CastLike(op.Reshape(gated, op.Shape(y), allowzero=1), qkv)


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
    q = _ours.narrow(q / op.Sqrt(op.Cast(P, to=1)))
    q = op.Transpose(q, perm=[0, 2, 1, 3])  # (b, H, L, P)
    k = op.Transpose(_ours.narrow(k), perm=[0, 2, 3, 1])
    v = op.Transpose(op.Reshape(_ours.narrow(v), tokens, allowzero=1), perm=[0, 2, 1, 3])
    scores = _ours.narrow(op.MatMul(q, k))
    weights = _ours.narrow(op.Softmax(op.Cast(scores, to=1), axis=-1))
    y = op.Transpose(op.MatMul(weights, v), perm=[0, 2, 1, 3])
    joined = op.Concat(op.Shape(qkv, start=0, end=2), H * P, axis=0)
    return _ours.gate(op.Reshape(y, joined, allowzero=1), gates, qkv)


@script(_ours, default_opset=op)
def rotary_attention_contrib(qkv, gates, freqs, heads: int):
    """The same with ONNX Runtime's operators, which take (b, L, H·P) as it lies in memory."""
    q, k, v = op.Split(qkv, num_outputs=3, axis=2)
    turns = _ours.angles(qkv, freqs)
    cos, sin = op.Cos(turns), op.Sin(turns)
    first = op.Constant(value_ints=[0])  # the position of the first token
    q = _contrib.RotaryEmbedding(op.Cast(q, to=1), first, cos, sin, interleaved=1)
    k = _contrib.RotaryEmbedding(op.Cast(k, to=1), first, cos, sin, interleaved=1)
    q, k, v = _ours.narrow(q), _ours.narrow(k), _ours.narrow(v)
    y = _contrib.MultiHeadAttention(q, k, v, num_heads=heads)
    return _ours.gate(y, gates, qkv)


@script(_ours, default_opset=op)
def keep(x):
    """The values of the products in fp32."""
    return op.Identity(x)


@script(_ours, default_opset=op)
def halve(x):
    """The values of the products in fp16 and bf16."""
    return op.Cast(x, to=10)


@script(_ours, default_opset=op)
def round_half(x):
    """The same values in float32, to emulate float16."""
    return op.Cast(op.Cast(x, to=10), to=1)


def functions(
    target: str, precision: str = "fp32", *, emulate: bool = False
) -> list[onnx.FunctionProto]:
    """Returns the functions that define the node.

    Args:
        target: ``portable`` or ``ort``.
        precision, emulate: as for :func:`bsmamba2_export.precision.lower`.
    """
    fused = target == "ort"
    main = rotary_attention_contrib if fused else rotary_attention
    narrow = keep if precision == "fp32" else round_half if emulate else halve
    parts = [main, angles, gate, narrow] if fused else [main, rotate, angles, gate, narrow]
    protos = [part.to_function_proto() for part in parts]
    protos[0].name, protos[-1].name = NAME, "narrow"
    return protos
