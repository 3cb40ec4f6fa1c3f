"""Attention with rotary positions and gated heads, on one page.

For a sequence of L tokens, H heads of P features (RoFormer: Su et al. 2021, arXiv 2104.09864; the
gates: Lu et al. 2023, arXiv 2309.02612):

1. **Rotate.** Features 2i and 2i + 1 of a query or key are a point in the plane, turned by the
   token's position times freqs[i]. Products of queries and keys then depend only on distances.
2. **Attend.** y = softmax(q·kᵀ / √P)·v over all tokens.
3. **Gate.** Each head's y times sigmoid(gate), one number per token and head.

The operator ``bsmamba2::rotary_attention`` has the same name and signature in PyTorch and in ONNX.
:func:`attention` is its specification. Positions are computed in every call from the length, and
never kept, so that a traced graph holds for any length.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

MOST_ROWS = 1 << 15
"""Sequences per call of PyTorch's attention: its CUDA kernels refuse more than 65,535."""


def attention(qkv: Tensor, gates: Tensor, freqs: Tensor, heads: int) -> Tensor:
    """Computes steps 1 to 3 in plain, differentiable PyTorch: the body of the operator.

    Arguments and result are those of :func:`rotary_attention`. Rotation, softmax and gates are
    computed in float32 or better, the products in the type of ``qkv``.
    """
    q, k, v = _rotated(qkv, freqs, heads)
    scores = (q @ k.mT).to(_exact(qkv)) / math.sqrt(q.shape[-1])
    return _gated(scores.softmax(-1).to(qkv.dtype) @ v, gates)


def fused(qkv: Tensor, gates: Tensor, freqs: Tensor, heads: int) -> Tensor:
    """Computes the same with PyTorch's fused attention, which never holds all scores."""
    q, k, v = _rotated(qkv, freqs, heads)
    if q.shape[0] <= MOST_ROWS:
        return _gated(scaled_dot_product_attention(q, k, v), gates)
    parts = zip(*(x.split(MOST_ROWS) for x in (q, k, v)), strict=True)
    return _gated(torch.cat([scaled_dot_product_attention(*part) for part in parts]), gates)


@torch.library.custom_op("bsmamba2::rotary_attention", mutates_args=())
def rotary_attention(qkv: Tensor, gates: Tensor, freqs: Tensor, heads: int) -> Tensor:
    """Runs the attention as a registered operator, which the export maps to one ONNX node.

    Args:
        qkv: (batch, L, 3·H·P), to_qkv's output: queries, keys and values, each head after head.
        gates: (batch, L, H), before the sigmoid.
        freqs: (P / 2,), the angle per position of each pair of features, radians.
        heads: H.

    Returns:
        (batch, L, H·P) in qkv's type.
    """
    _check(qkv, gates, freqs, heads)
    return _run(qkv, gates, freqs, heads)


def _run(qkv: Tensor, gates: Tensor, freqs: Tensor, heads: int) -> Tensor:
    # Autocast would round the angles.
    with torch.autocast(qkv.device.type, enabled=False):
        body = fused if qkv.numel() else attention
        return body(qkv, gates, freqs, heads).contiguous()


@rotary_attention.register_fake
def _shapes(qkv: Tensor, gates: Tensor, freqs: Tensor, heads: int) -> Tensor:
    batch, length, width = qkv.shape
    return qkv.new_empty(batch, length, width // 3)


def _remember(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    ctx.save_for_backward(*inputs[:3])
    ctx.heads = inputs[3]


def _backward(ctx, gradient):  # type: ignore[no-untyped-def]
    """Runs the forward again under autograd: its intermediates are larger than its inputs."""
    inputs = [
        v.detach().requires_grad_(needed)
        for v, needed in zip(ctx.saved_tensors, ctx.needs_input_grad, strict=False)
    ]
    with torch.enable_grad():
        output = _run(*inputs, ctx.heads)
    torch.autograd.backward(output, gradient)
    return (*(v.grad for v in inputs), None)


rotary_attention.register_autograd(_backward, setup_context=_remember)


def _rotated(qkv: Tensor, freqs: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns queries and keys after step 1, and values, each (batch, H, L, P) in qkv's type."""
    exact = _exact(qkv)
    q, k, v = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    angles = torch.arange(qkv.shape[1], dtype=exact, device=qkv.device)[:, None] * freqs.to(exact)
    cos, sin = angles.cos(), angles.sin()  # (L, P / 2)

    def rotate(x: Tensor) -> Tensor:
        a, b = x.to(exact).unflatten(-1, (-1, 2)).unbind(-1)
        turned = torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-1)
        return turned.flatten(-2).to(qkv.dtype)

    return rotate(q), rotate(k), v


def _gated(y: Tensor, gates: Tensor) -> Tensor:
    """Computes step 3 and joins the heads: (batch, H, L, P) to (batch, L, H·P)."""
    open_part = gates.to(_exact(gates)).sigmoid().to(y.dtype)
    return (y.transpose(1, 2) * open_part[..., None]).flatten(2)


def _exact(like: Tensor) -> Any:
    return torch.promote_types(like.dtype, torch.float32)


def _check(qkv: Tensor, gates: Tensor, freqs: Tensor, heads: int) -> None:
    """Raises ValueError, naming the argument, if the shapes are inconsistent."""
    batch, length = qkv.shape[:2]
    expected = {
        "qkv": (qkv, (batch, length, 3 * heads * 2 * freqs.shape[0])),
        "gates": (gates, (batch, length, heads)),
    }
    for name, (tensor, shape) in expected.items():
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name} must have the shape {shape}; got {tuple(tensor.shape)}")
