"""MSST's own BSMamba2, with its Mamba2 replaced by a recurrence written from the paper alone.

MSST imports mamba_ssm, whose CUDA kernels do not run on a CPU. The simplest code with the same
parameters replaces it. It shares nothing with the project.
"""

from __future__ import annotations

import math
import sys
from types import ModuleType
from typing import Any

import torch
from torch import nn


class Mamba2(nn.Module):
    def __init__(
        self,
        d_model: int,
        expand: int = 2,
        headdim: int = 64,
        d_state: int = 128,
        d_conv: int = 4,
        layer_idx: int | None = None,
    ) -> None:
        super().__init__()
        self.d_inner = inner = expand * d_model
        self.N, self.P, self.H = d_state, headdim, inner // headdim
        channels = inner + 2 * d_state
        self.in_proj = nn.Linear(d_model, inner + channels + self.H, bias=False)
        self.conv1d = nn.Conv1d(channels, channels, d_conv, groups=channels, padding=d_conv - 1)
        self.dt_bias = nn.Parameter(torch.randn(self.H))
        self.A_log = nn.Parameter(torch.rand(self.H))
        self.D = nn.Parameter(torch.ones(self.H))
        self.norm = RMSNorm(inner)
        self.out_proj = nn.Linear(inner, d_model, bias=False)

    def forward(self, u: torch.Tensor, inference_params: Any = None) -> torch.Tensor:
        batch, length, _ = u.shape
        proj = self.in_proj(u)
        z, xBC, dt = proj.split([self.d_inner, self.d_inner + 2 * self.N, self.H], -1)
        xBC = self.conv1d(xBC.mT)[..., :length].mT
        xBC = xBC / (1 + torch.exp(-xBC))
        x, B, C = xBC.split([self.d_inner, self.N, self.N], -1)
        x = x.view(batch, length, self.H, self.P)
        dt = torch.log1p(torch.exp(dt + self.dt_bias))
        h = u.new_zeros(batch, self.H, self.P, self.N)
        out = []
        for t in range(length):
            fade = torch.exp(-torch.exp(self.A_log) * dt[:, t])
            written = (dt[:, t, :, None] * x[:, t])[..., None] * B[:, t, None, None]
            h = fade[..., None, None] * h + written
            out.append((h * C[:, t, None, None]).sum(-1) + self.D[:, None] * x[:, t])
        y = torch.stack(out, 1).reshape(batch, length, -1)
        out_proj: torch.Tensor = self.out_proj(self.norm(y * z / (1 + torch.exp(-z))))
        return out_proj


class RMSNorm(nn.Module):
    def __init__(self, size: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(size)), eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / (x.pow(2).mean(-1, keepdim=True) + self.eps).sqrt() * self.weight


class Block(nn.Module):
    def __init__(
        self, dim: int, mixer_cls: Any, norm_cls: Any, fused_add_norm: bool, mlp_cls: Any
    ) -> None:
        super().__init__()
        self.norm, self.mixer = norm_cls(dim), mixer_cls(dim)

    def forward(
        self,
        hidden: torch.Tensor,
        residual: torch.Tensor | None = None,
        inference_params: Any = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        residual = hidden if residual is None else hidden + residual
        return self.mixer(self.norm(residual)), residual


def stub_mamba_ssm() -> None:
    """Installs the classes above as the modules of mamba_ssm that MSST imports."""
    parts: dict[str, dict[str, Any]] = {
        "mamba_ssm": {},
        "mamba_ssm.modules": {},
        "mamba_ssm.modules.mamba_simple": {"Mamba": Mamba2},
        "mamba_ssm.modules.mamba2": {"Mamba2": Mamba2},
        "mamba_ssm.modules.block": {"Block": Block},
        "mamba_ssm.modules.mlp": {"GatedMLP": nn.Identity},
        "mamba_ssm.models": {},
        "mamba_ssm.models.mixer_seq_simple": {"_init_weights": lambda module, n_layer: None},
        "mamba_ssm.ops": {},
        "mamba_ssm.ops.triton": {},
        "mamba_ssm.ops.triton.layer_norm": {"RMSNorm": RMSNorm},
    }
    for name, members in parts.items():
        module = ModuleType(name)
        vars(module).update(members)
        sys.modules[name] = module


def published_model(**sizes: Any) -> Any:
    """MSST's ``BSMamba2Model`` with the configuration of the published model."""
    stub_mamba_ssm()
    from msst.models.bs_mamba2_code.bs_mamba2 import BSMamba2Model

    fixed = {"stereo": True, "num_stems": 1, "stft_hop_length": 441, "module_type": "mamba2"}
    options: dict[str, Any] = {"dim": 256, "depth": 6} | fixed | sizes
    return BSMamba2Model(**options).eval()


def snr_db(reference: torch.Tensor, estimate: torch.Tensor) -> float:
    noise = (reference - estimate).square().sum().item()
    return 10 * math.log10(reference.square().sum().item() / noise)
