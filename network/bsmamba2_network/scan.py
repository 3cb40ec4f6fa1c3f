"""The Mamba2 scan: everything between the two projections of a mixer, on one page.

For a sequence of L steps (paper: Dao and Gu 2024, "Transformers are SSMs", arXiv 2405.21060):

1. **Convolve.** x, B and C pass through a causal depthwise convolution and SiLU.
2. **Discretise.** Δ = softplus(dt + dt_bias); the decay of a step is exp(a) with a = −Δ·exp(A_log),
   one number per head.
3. **Scan.** h_t = exp(a_t)·h_{t−1} + Δ_t·x_t ⊗ B_t, a (P, N) matrix per head;
   y_t = C_t·h_t + D·x_t.
4. **Gate.** y·SiLU(z), then RMS norm.

Step 3 is written twice. :func:`recurrence` is the definition. :func:`segmented` computes the same
sum, cut at multiples of Q (state-space duality; the paper calls the parts chunks). Inside a segment

    y_i = Σ_{j ≤ i} (C_i·B_j) exp(a_{j+1} + … + a_i) Δ_j x_j

is a masked matrix product, and only the states at the cuts need a recurrence. Decays are computed
as differences of sums of logarithms, never as quotients of products, which underflow.

The operator ``bsmamba2::mamba2_scan`` has the same name and signature in PyTorch, in ONNX and in
the native kernels. On CUDA it runs mamba_ssm's kernels if they are installed and precise enough
for the call (:mod:`bsmamba2_network.mamba_kernels`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import conv1d, pad, silu, softplus

from bsmamba2_network import mamba_kernels, native

SEGMENT = 64

StateSpace = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def recurrence(x: Tensor, a: Tensor, B: Tensor, C: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """Computes the state space step by step: the definition, and the reference for other forms.

    Args:
        x: (batch, L, H, P), already times Δ.
        a: (batch, L, H), the logarithm of each step's decay.
        B: (batch, L, N), what a step writes.
        C: (batch, L, N), what a step reads.
        h: (batch, H, P, N), the state before the first step.

    Returns:
        y (batch, L, H, P) without the skip, and the state after the last step.
    """
    y = torch.empty_like(x)
    for t in range(x.shape[1]):
        decay = a[:, t].exp()[..., None, None]
        h = decay * h + x[:, t, :, :, None] * B[:, t, None, None, :]
        y[:, t] = torch.einsum("bhpn,bn->bhp", h, C[:, t])
    return y, h


def segmented(x: Tensor, a: Tensor, B: Tensor, C: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """Computes the state space in segments of Q = 64 steps.

    Arguments and results are those of :func:`recurrence`.
    """
    length = x.shape[1]
    Q = max(1, min(SEGMENT, length))
    # A step with x = 0 and a = 0 writes nothing and forgets nothing: it pads the last segment.
    x, a, B, C = (pad(v, (0, 0) * (v.dim() - 2) + (0, -length % Q)) for v in (x, a, B, C))
    x, a, B, C = (v.unflatten(1, (-1, Q)) for v in (x, a, B, C))  # (batch, segments, Q, …)

    # Inside the segments: decay[i, j] = exp(a_{j+1} + … + a_i) for j ≤ i, else 0.
    total = a.cumsum(2).transpose(2, 3)  # (batch, segments, H, Q)
    above = torch.ones(Q, Q, dtype=torch.bool, device=x.device).triu(1)
    decay = (total[..., :, None] - total[..., None, :]).masked_fill(above, -torch.inf).exp()
    scores = torch.einsum("bcin,bcjn->bcij", C, B)[:, :, None] * decay
    y = torch.einsum("bchij,bcjhp->bcihp", scores, x)

    # From cut to cut: what each segment adds to the state, then the recurrence over segments.
    to_end = (total[..., -1:] - total).exp()
    added = torch.einsum("bchj,bcjhp,bcjn->bchpn", to_end, x, B)
    over_segment = total[..., -1].exp()[..., None, None]
    entering = []
    for c in range(x.shape[1]):
        entering.append(h)
        h = over_segment[:, c] * h + added[:, c]

    # What the state at each cut contributes to the steps after it.
    if entering:
        states = torch.stack(entering, 1)
        y = y + torch.einsum("bcin,bchpn,bchi->bcihp", C, states, total.exp())
    return y.flatten(1, 2)[:, :length], h


def scan(
    zxbcdt: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor,
    dt_bias: Tensor,
    A_log: Tensor,
    D: Tensor,
    norm_weight: Tensor,
    conv_state: Tensor,
    ssm_state: Tensor,
    head_dim: int,
    state_size: int,
    reverse: bool,
    epsilon: float,
    *,
    state_space: StateSpace = segmented,
) -> tuple[Tensor, Tensor, Tensor]:
    """Computes steps 1 to 4 in plain, differentiable PyTorch: the body of :func:`mamba2_scan`.

    Arguments and results are those of :func:`mamba2_scan`; ``state_space`` selects the form of
    step 3. Inputs of lower precision than float32 are computed in float32.
    """
    _check(
        zxbcdt, conv_weight, conv_bias, dt_bias, A_log, D, norm_weight, conv_state, ssm_state,
        head_dim, state_size,
    )  # fmt: skip
    dtype = zxbcdt.dtype
    exact = torch.promote_types(dtype, torch.float32)
    batch, heads = zxbcdt.shape[0], A_log.shape[0]
    d_inner = heads * head_dim
    conv_state = conv_state.to(exact).expand(batch, -1, -1)
    ssm_state = ssm_state.to(exact).expand(batch, -1, -1, -1)

    zxbcdt = zxbcdt.to(exact)
    if reverse:
        zxbcdt = zxbcdt.flip(1)
    z, xBC, dt = zxbcdt.split([d_inner, d_inner + 2 * state_size, heads], dim=-1)

    past = torch.cat([conv_state, xBC.transpose(1, 2)], dim=-1)
    conv_state = past[..., xBC.shape[1] :].clone()
    if xBC.shape[1]:  # conv1d refuses an empty result
        past = conv1d(past, conv_weight.to(exact), conv_bias.to(exact), groups=past.shape[1])
        xBC = silu(past).transpose(1, 2)
    x, B, C = xBC.split([d_inner, state_size, state_size], dim=-1)
    x = x.unflatten(-1, (heads, head_dim))

    delta = softplus(dt + dt_bias.to(exact))
    a = -delta * A_log.to(exact).exp()

    y, ssm_state = state_space(x * delta[..., None], a, B, C, ssm_state)
    y = (y + D.to(exact)[:, None] * x).flatten(2)

    y = y * silu(z)
    y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + epsilon) * norm_weight.to(exact)
    if reverse:
        y = y.flip(1)
    return y.to(dtype), conv_state, ssm_state.clone()


@torch.library.custom_op("bsmamba2::mamba2_scan", mutates_args=())
def mamba2_scan(
    zxbcdt: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor,
    dt_bias: Tensor,
    A_log: Tensor,
    D: Tensor,
    norm_weight: Tensor,
    conv_state: Tensor,
    ssm_state: Tensor,
    head_dim: int,
    state_size: int,
    reverse: bool,
    epsilon: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Runs the scan as a registered operator, which the export maps to one ONNX node.

    H heads of P features give d_inner = H·P; the convolution has d_inner + 2·N channels.

    Args:
        zxbcdt: (batch, L, 2·d_inner + 2·N + H), in_proj's output: z, x, B, C and dt concatenated.
            Up to 7 more columns are padding.
        conv_weight: (d_inner + 2·N, 1, width).
        conv_bias: (d_inner + 2·N,).
        dt_bias: (H,).
        A_log: (H,).
        D: (H,), the skip connection.
        norm_weight: (d_inner,).
        conv_state: (batch or 1, d_inner + 2·N, width − 1), the convolution's last inputs, oldest
            first.
        ssm_state: (batch or 1, H, P, N).
        head_dim: P.
        state_size: N.
        reverse: whether to run from the last step to the first. y keeps the order of the input,
            and the states are those before the first step taken and after the last.
        epsilon: added under the root of the norm.

    Returns:
        y (batch, L, d_inner) in zxbcdt's type, and both states after the last step, with the full
        batch, in float32 or better. L and batch may be 0.

    Source: ``mamba_split_conv1d_scan_combined`` and ``RMSNormGated`` of state-spaces/mamba.
    """
    return _run(
        zxbcdt, conv_weight, conv_bias, dt_bias, A_log, D, norm_weight, conv_state, ssm_state,
        head_dim, state_size, reverse, epsilon,
    )  # fmt: skip


def _run(*inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Computes the operator, by the first kernels that support the inputs or by the body."""
    inputs = (_without_padding(*inputs), *inputs[1:])
    if native.supports(*inputs):
        return cast("tuple[Tensor, Tensor, Tensor]", native.forward(*inputs))
    body = mamba_kernels.scan if mamba_kernels.supports(*inputs) else scan
    # Autocast would treat the products inside as a layer's, and round the states.
    with torch.autocast(inputs[0].device.type, enabled=False):
        return body(*inputs)


@mamba2_scan.register_fake
def _shapes(
    zxbcdt: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor,
    dt_bias: Tensor,
    A_log: Tensor,
    D: Tensor,
    norm_weight: Tensor,
    conv_state: Tensor,
    ssm_state: Tensor,
    head_dim: int,
    state_size: int,
    reverse: bool,
    epsilon: float,
) -> tuple[Tensor, Tensor, Tensor]:
    batch, length = zxbcdt.shape[:2]
    exact = torch.promote_types(zxbcdt.dtype, torch.float32)
    return (
        zxbcdt.new_empty(batch, length, norm_weight.shape[0]),
        conv_state.new_empty(batch, *conv_state.shape[1:], dtype=exact),
        ssm_state.new_empty(batch, *ssm_state.shape[1:], dtype=exact),
    )


def _remember(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    ctx.set_materialize_grads(False)  # the states' would be huge tensors of zeros
    ctx.save_for_backward(*inputs[:9])
    ctx.attributes = inputs[9:]


def _backward(ctx, *gradients):  # type: ignore[no-untyped-def]
    """Runs the forward again under autograd: a scan's intermediates are large, its inputs small.

    The C++ kernel computes its gradients itself, and also recomputes the intermediates.
    """
    zxbcdt = ctx.saved_tensors[0]
    is_padded = _without_padding(*ctx.saved_tensors).shape != zxbcdt.shape
    if not is_padded and native.supports(*ctx.saved_tensors, *ctx.attributes):
        input_gradients = native.gradients(
            *ctx.saved_tensors,
            *ctx.attributes,
            output_gradients=gradients,
            needs_ssm_state=ctx.needs_input_grad[8],
        )
        return (*input_gradients, None, None, None, None)
    inputs = [
        v.detach().requires_grad_(needed)
        for v, needed in zip(ctx.saved_tensors, ctx.needs_input_grad, strict=False)
    ]
    with torch.enable_grad():
        outputs = _run(*inputs, *ctx.attributes)
    used = [i for i in range(3) if gradients[i] is not None and outputs[i].requires_grad]
    if used:
        with torch.autocast(inputs[0].device.type, enabled=False):
            torch.autograd.backward([outputs[i] for i in used], [gradients[i] for i in used])
    return (*(v.grad for v in inputs), None, None, None, None)


mamba2_scan.register_autograd(_backward, setup_context=_remember)


def _without_padding(zxbcdt: Tensor, *weights: Any) -> Tensor:
    """Returns zxbcdt without columns of padding; ``weights`` are the scan's other inputs."""
    conv_weight, _, _, A_log, _, norm_weight = weights[:6]
    columns = norm_weight.shape[0] + conv_weight.shape[0] + A_log.shape[0]
    more = zxbcdt.shape[2] - columns
    return zxbcdt[..., :columns].contiguous() if 0 < more < 8 else zxbcdt


def _check(
    zxbcdt: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor,
    dt_bias: Tensor,
    A_log: Tensor,
    D: Tensor,
    norm_weight: Tensor,
    conv_state: Tensor,
    ssm_state: Tensor,
    head_dim: int,
    state_size: int,
) -> None:
    """Raises ValueError, naming the argument, if the shapes are inconsistent."""
    batch, heads = zxbcdt.shape[0], A_log.shape[0]
    d_inner = heads * head_dim
    channels = d_inner + 2 * state_size
    expected = {
        "zxbcdt": (zxbcdt, (batch, zxbcdt.shape[1], 2 * d_inner + 2 * state_size + heads)),
        "conv_weight": (conv_weight, (channels, 1, conv_weight.shape[2])),
        "conv_bias": (conv_bias, (channels,)),
        "dt_bias": (dt_bias, (heads,)),
        "A_log": (A_log, (heads,)),
        "D": (D, (heads,)),
        "norm_weight": (norm_weight, (d_inner,)),
        "conv_state": (conv_state, (conv_state.shape[0], channels, conv_weight.shape[2] - 1)),
        "ssm_state": (ssm_state, (ssm_state.shape[0], heads, head_dim, state_size)),
    }
    for name, (tensor, shape) in expected.items():
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name} must have the shape {shape}; got {tuple(tensor.shape)}")
    for name, state in (("conv_state", conv_state), ("ssm_state", ssm_state)):
        if state.shape[0] not in (1, batch):
            raise ValueError(f"{name} must have batch size 1 or {batch}; got {state.shape[0]}")
