"""The network's parts in fewer passes over memory, for training on a CPU.

Each function computes what a plain body of :mod:`~bsmamba2_network.model` computes; results differ
only by rounding. Inside :func:`native.training` the network uses these functions for float32 on the
CPU; exports always have the plain bodies.

At the sizes that train on a CPU a product is so narrow that an elementwise pass over its operand
takes as long as the product. So there are as few passes as possible:

- A norm's weight is a diagonal matrix, and the product after it is W·(weight ∘ x). It scales the
  columns of W once instead of every token, and its gradient comes from that of W.
- A residual is the initial value of the sums of the product that it is added to.
- States that are not read are not computed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bsmamba2_network import native

State = tuple[Tensor, Tensor]


def supports(x: Tensor, head_dim: int, state_size: int) -> bool:
    """Returns whether a network with these sizes can compute from ``x`` with these functions."""
    return (
        native.is_available()
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and head_dim % 64 == 0
        and state_size % 64 == 0
        and x.numel() > 0
    )


def direction(
    x: Tensor,
    norm_weight: Tensor,
    in_weight: Tensor,
    scan_weights: tuple[Tensor, ...],
    out_weight: Tensor,
    start: State,
    *attributes: Any,
    needs_state: bool,
) -> tuple[Tensor, State | None]:
    """Computes x + out_proj(scan(in_proj(norm(x)))).

    Args:
        x: (batch, L, D).
        norm_weight: (D,).
        in_weight, out_weight: the projections, (columns of zxbcdt, D) and (D, d_inner).
        scan_weights: the scan's inputs from ``conv_weight`` to ``norm_weight``; see
            :func:`~bsmamba2_network.scan.mamba2_scan`.
        start: the scan's states before the first step.
        attributes: ``head_dim``, ``state_size``, ``reverse`` and ``epsilon``; the last is also
            that of the norm.
        needs_state: whether to return the states after the last step; if not, they are None.
    """
    out, *end = _Direction.apply(
        x, norm_weight, in_weight, *scan_weights, out_weight, *start, attributes, needs_state
    )
    return out, (end[0], end[1]) if needs_state else None


class _Direction(torch.autograd.Function):
    apply: ClassVar[Callable[..., tuple[Any, ...]]]  # PyTorch has no annotations for it

    @staticmethod
    def forward(ctx: Any, x: Tensor, *inputs: Any) -> tuple[Tensor | None, ...]:
        norm_weight, in_weight, *scan_weights, out_weight = inputs[:9]
        conv_state, ssm_state, attributes, needs_state = inputs[9:]
        tokens = x.reshape(-1, x.shape[-1])
        mean_square = torch.linalg.vector_norm(tokens, dim=1, keepdim=True).square_() / x.shape[-1]
        scale = mean_square.add_(attributes[-1]).rsqrt_()
        unit = tokens * scale
        zxbcdt = (unit @ (in_weight * norm_weight).T).unflatten(0, x.shape[:2])
        scan_inputs = (zxbcdt, *scan_weights, conv_state, ssm_state, *attributes)
        y, *end = native.forward(*scan_inputs, needs_states=needs_state)
        out = torch.addmm(tokens, y.flatten(0, 1), out_weight.T).view_as(x)
        ctx.attributes = attributes
        ctx.save_for_backward(
            unit, scale, y, norm_weight, in_weight, out_weight,
            zxbcdt, *scan_weights, conv_state, ssm_state,
        )  # fmt: skip
        ctx.set_materialize_grads(False)  # the states' would be huge tensors of zeros
        return out, *end

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor | None, *d_end: Tensor | None) -> tuple[Any, ...]:
        unit, scale, y, norm_weight, in_weight, out_weight, *scan_inputs = ctx.saved_tensors
        d_tokens = None if d_out is None else d_out.reshape(unit.shape)
        d_y = None if d_tokens is None else (d_tokens @ out_weight).view_as(y)
        d_out_weight = None if d_tokens is None else d_tokens.T @ y.flatten(0, 1)
        d_zxbcdt, *d_scan = native.gradients(
            *scan_inputs,
            *ctx.attributes,
            output_gradients=(d_y, *d_end),
            needs_ssm_state=ctx.needs_input_grad[11],
        )
        d_rows = cast("Tensor", d_zxbcdt).flatten(0, 1)
        d_product = d_rows.T @ unit
        d_unit = d_rows @ (in_weight * norm_weight)
        # Through x / √(mean(x²) + ε): the part along x vanishes.
        along = (d_unit * unit).mean(1, keepdim=True)
        d_x = d_unit.addcmul_(unit, along, value=-1).mul_(scale)
        if d_tokens is not None:
            d_x += d_tokens
        return (
            d_x.view(*y.shape[:2], -1),
            (d_product * in_weight).sum(0),
            d_product * norm_weight,
            *d_scan[:6],
            d_out_weight,
            *d_scan[6:],
            None,
            None,
        )


def join(x: Tensor, f: Tensor, g: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Computes x + [f ; g]·weight + bias; the tensors are (batch, L, D), the weight (2·D, D)."""
    of_f, of_g = weight.chunk(2)
    joined = torch.addmm(bias, f.flatten(0, 1), of_f).addmm_(g.flatten(0, 1), of_g)
    return joined.view_as(x).add_(x)


def apply_masks(masks: Tensor, mixture: Tensor) -> Tensor:
    """Computes :func:`bsmamba2_network.bands.apply_masks` as one complex product."""
    product = torch.view_as_complex(masks) * torch.view_as_complex(mixture.unsqueeze(1))
    return torch.view_as_real(product)
