"""SCNet's LSTMs in plain ONNX operators: the body of ``bsmamba2::bidirectional_lstm``.

ONNX has the operator, but with the weights of both directions in one tensor, and the gates in
another order. The body arranges them, so the graph's initialisers are the checkpoint's tensors. A
runtime does that once, when it loads the graph.
"""

# mypy: ignore-errors
# Inside @script, Python is read as ONNX: a name is a tensor, a call is an operator.

from __future__ import annotations

import onnx
from onnxscript import script
from onnxscript.onnx_opset import opset20 as op
from onnxscript.values import Opset

from bsmamba2_export.body import DOMAIN

NAME = "bidirectional_lstm"
INPUTS = (
    "x", "weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_ih_reverse", "weight_hh_reverse",
    "bias_ih_reverse", "bias_hh_reverse",
)  # fmt: skip

_ours = Opset(DOMAIN, 1)


@script(_ours, default_opset=op)
def both_directions(forward, reverse):
    """(4·H, …) twice, with PyTorch's gates i, f, g, o, to (2, 4·H, …) with ONNX's i, o, f, c."""
    first = op.Constant(value_ints=[0])
    both = op.Concat(op.Unsqueeze(forward, first), op.Unsqueeze(reverse, first), axis=0)
    i, f, g, o = op.Split(both, num_outputs=4, axis=1)
    return op.Concat(i, o, f, g, axis=1)


@script(_ours, default_opset=op)
def bidirectional_lstm(
    x,
    weight_ih,
    weight_hh,
    bias_ih,
    bias_hh,
    weight_ih_reverse,
    weight_hh_reverse,
    bias_ih_reverse,
    bias_hh_reverse,
    hidden: int,
):
    """(n, L, D) to (n, L, 2·H); the other arguments are those of torch.nn.LSTM."""
    w = _ours.both_directions(weight_ih, weight_ih_reverse)
    r = _ours.both_directions(weight_hh, weight_hh_reverse)
    b_ih = _ours.both_directions(bias_ih, bias_ih_reverse)
    b_hh = _ours.both_directions(bias_hh, bias_hh_reverse)
    b = op.Concat(b_ih, b_hh, axis=1)
    steps = op.Transpose(x, perm=[1, 0, 2])
    y, _, _ = op.LSTM(steps, w, r, b, direction="bidirectional", hidden_size=hidden)
    y = op.Transpose(y, perm=[2, 0, 1, 3])  # (L, 2, n, H) to (n, L, 2, H)
    return op.Reshape(y, op.Constant(value_ints=[0, 0, -1]))


def functions() -> list[onnx.FunctionProto]:
    """Returns the functions that define the node."""
    return [bidirectional_lstm.to_function_proto(), both_directions.to_function_proto()]
