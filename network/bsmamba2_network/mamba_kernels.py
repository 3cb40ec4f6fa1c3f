"""The scan by the Triton and CUDA kernels of mamba_ssm and causal_conv1d, if they are installed.

These kernels round products, and the values passed between segments, to the type of zxbcdt, which
PyTorch's body does not; in float32 their products are TF32. So they are used for fp16 and bf16, and
for float32 only if ``torch.set_float32_matmul_precision`` allows TF32.

Source: ``mamba_chunk_scan_combined`` and ``rmsnorm_fn`` of state-spaces/mamba, ``causal_conv1d_fn``
of Dao-AILab/causal-conv1d.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import conv1d, silu


class Kernels(NamedTuple):
    """The external functions that :func:`scan` calls."""

    chunk_scan: Callable[..., tuple[Tensor, Tensor]]
    gated_norm: Callable[..., Tensor]
    convolve: Callable[..., Tensor]


@cache
def installed() -> Kernels | None:
    """Returns the kernels, or None without mamba_ssm; without causal_conv1d PyTorch convolves."""
    try:
        from mamba_ssm.ops.triton.layernorm_gated import rmsnorm_fn
        from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined
    except ImportError:
        return None
    try:
        from causal_conv1d import causal_conv1d_fn
    except ImportError:
        causal_conv1d_fn = _convolve
    return Kernels(mamba_chunk_scan_combined, rmsnorm_fn, causal_conv1d_fn)


def supports(zxbcdt: Tensor, conv_weight: Tensor, *rest: Any) -> bool:
    """Returns whether the kernels can run this call of ``mamba2_scan``."""
    return (
        zxbcdt.is_cuda
        and zxbcdt.numel() > 0
        and conv_weight.shape[0] % 8 == 0  # required by causal_conv1d
        and (
            zxbcdt.dtype in (torch.float16, torch.bfloat16)
            or (zxbcdt.dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest")
        )
        and installed() is not None
    )


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
) -> tuple[Tensor, Tensor, Tensor]:
    """Does the same as :func:`bsmamba2_network.scan.scan`, and is differentiable.

    Only for calls that :func:`supports` accepts.
    """
    kernels = installed()
    assert kernels is not None
    batch, length, heads = *zxbcdt.shape[:2], A_log.shape[0]
    d_inner = heads * head_dim
    if reverse:
        zxbcdt = zxbcdt.flip(1)
    z, xBC, dt = zxbcdt.split([d_inner, d_inner + 2 * state_size, heads], dim=-1)

    # The previous inputs are prepended, so the convolution needs no initial state. Its first
    # results belong to the past and are dropped.
    state = conv_state.transpose(1, 2).expand(batch, -1, -1)
    past = torch.cat([state.to(xBC.dtype), xBC], dim=1)
    width = state.shape[1]
    conv_state = past[:, length:].transpose(1, 2).to(torch.float32, copy=True)
    xBC = kernels.convolve(
        past.transpose(1, 2), conv_weight[:, 0], conv_bias, activation="silu"
    ).transpose(1, 2)[:, width:]
    x, B, C = xBC.split([d_inner, state_size, state_size], dim=-1)

    y, ssm_state = kernels.chunk_scan(
        x.unflatten(-1, (heads, head_dim)),
        dt,
        -A_log.float().exp(),
        B.unsqueeze(2),  # one group for all heads
        C.unsqueeze(2),
        chunk_size=64 if length <= 64 else 128 if length <= 128 else 256,
        D=D.float(),
        dt_bias=dt_bias.float(),
        dt_softplus=True,
        initial_states=ssm_state.float().expand(batch, -1, -1, -1),
        return_final_states=True,
    )
    y = kernels.gated_norm(
        y.flatten(2), norm_weight, None, z=z, eps=epsilon, norm_before_gate=False
    )
    return y.flip(1) if reverse else y, conv_state, ssm_state


def _convolve(x: Tensor, weight: Tensor, bias: Tensor, activation: str) -> Tensor:
    """causal_conv1d_fn in PyTorch: x (batch, channels, L), weight (channels, width)."""
    width, channels = weight.shape[1], x.shape[1]
    y = conv1d(x, weight[:, None].to(x.dtype), bias.to(x.dtype), padding=width - 1, groups=channels)
    return silu(y[..., : x.shape[2]])
