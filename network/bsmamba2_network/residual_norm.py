"""The operator between two blocks of the compact network: add what a block computed, and normalise.

The operator ``bsmamba2::residual_norm`` has the same name and signature in PyTorch and in ONNX.
:func:`body` is its specification.
"""

from __future__ import annotations

import torch
from torch import Tensor


def body(
    x: Tensor,
    forwards: Tensor,
    backwards: Tensor,
    scaled: Tensor,
    bias: Tensor,
    epsilon: float,
    next_epsilon: float,
) -> tuple[Tensor, Tensor]:
    """Computes the operator in plain PyTorch; arguments and results as :func:`residual_norm`."""
    size = torch.sqrt(x.square().mean(-1, keepdim=True) + epsilon)
    joined = x + forwards.to(x.dtype) + backwards.to(x.dtype) + size * scaled.to(x.dtype) + bias
    joined = joined.transpose(1, 2).contiguous()
    unit = joined / torch.sqrt(joined.square().mean(-1, keepdim=True) + next_epsilon)
    return joined, unit.to(forwards.dtype)


@torch.library.custom_op("bsmamba2::residual_norm", mutates_args=())
def residual_norm(
    x: Tensor,
    forwards: Tensor,
    backwards: Tensor,
    scaled: Tensor,
    bias: Tensor,
    epsilon: float,
    next_epsilon: float,
) -> tuple[Tensor, Tensor]:
    """Runs the operator, which the export maps to one ONNX node.

    With r(x, ε) = √(mean(x²) + ε) over the last axis, it computes
    x' = x + forwards + backwards + r(x, epsilon) · scaled + bias.

    Args:
        x: (batch, m, n, D), float32.
        forwards, backwards, scaled: (batch, m, n, D), of one type, which may be narrow.
        bias: (D,), float32.
        epsilon, next_epsilon: added under the roots.

    Returns:
        x' in float32 and x' / r(x', next_epsilon) in the type of ``forwards``, with the axes m and
        n exchanged: (batch, n, m, D). The next block runs along the other axis.
    """
    return body(x, forwards, backwards, scaled, bias, epsilon, next_epsilon)


@residual_norm.register_fake
def _shapes(
    x: Tensor,
    forwards: Tensor,
    backwards: Tensor,
    scaled: Tensor,
    bias: Tensor,
    epsilon: float,
    next_epsilon: float,
) -> tuple[Tensor, Tensor]:
    batch, m, n, features = x.shape
    shape = batch, n, m, features
    return x.new_empty(shape), forwards.new_empty(shape)
