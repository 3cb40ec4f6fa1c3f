"""The specification of ``bsmamba2::residual_norm`` in plain ONNX operators.

The names are those of :mod:`bsmamba2_network.residual_norm`. CUDA has a kernel for the node.
"""

# mypy: ignore-errors
# Inside @script, Python is read as ONNX: a name is a tensor, a call is an operator.

from __future__ import annotations

import onnx
from onnxscript import script
from onnxscript.onnx_opset import opset20 as op
from onnxscript.values import Opset

from bsmamba2_export.body import DOMAIN

NAME = "residual_norm"
INPUTS = ("x", "forwards", "backwards", "scaled", "bias")
NARROW_INPUTS = (1, 2, 3)
"""The inputs of the second output's type; the others are float32, like the first output."""

_ours = Opset(DOMAIN, 1)


@script(_ours, default_opset=op)
def residual_norm(x, forwards, backwards, scaled, bias, epsilon: float, next_epsilon: float):
    """Arguments and results as bsmamba2_network.residual_norm.residual_norm."""
    last = op.Constant(value_ints=[-1])
    size = op.Sqrt(op.ReduceMean(x * x, last, keepdims=1) + op.Constant(value_float=epsilon))
    joined = x + op.Cast(forwards, to=1) + op.Cast(backwards, to=1)
    joined = op.Transpose(joined + size * op.Cast(scaled, to=1) + bias, perm=[0, 2, 1, 3])
    power = op.ReduceMean(joined * joined, last, keepdims=1)
    unit = joined / op.Sqrt(power + op.Constant(value_float=next_epsilon))
    return joined, op.CastLike(unit, forwards)


def functions() -> list[onnx.FunctionProto]:
    """Returns the function that defines the node, for every target."""
    return [residual_norm.to_function_proto()]
