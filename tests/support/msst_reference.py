"""MSST's own BSMamba2, its Mamba2 replaced by a recurrence written from the paper alone.

MSST imports CUDA kernels that a CPU does not have. What it asks of mamba_ssm is stood in for by
the plainest code that has the same parameters: nothing here is shared with the project.
"""

from __future__ import annotations

import math
import sys
from types import ModuleType

import torch
from torch import nn


class Mamba2(nn.Module):
    def __init__(self, d_model, expand=2, headdim=64, d_state=128, d_conv=4, layer_idx=None):
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

    def forward(self, u, inference_params=None):
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
        return self.out_proj(self.norm(y * z / (1 + torch.exp(-z))))


class RMSNorm(nn.Module):
    def __init__(self, size, eps=1e-5):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(size)), eps

    def forward(self, x):
        return x / (x.pow(2).mean(-1, keepdim=True) + self.eps).sqrt() * self.weight


class Block(nn.Module):
    def __init__(self, dim, mixer_cls, norm_cls, fused_add_norm, mlp_cls):
        super().__init__()
        self.norm, self.mixer = norm_cls(dim), mixer_cls(dim)

    def forward(self, hidden, residual=None, inference_params=None):
        residual = hidden if residual is None else hidden + residual
        return self.mixer(self.norm(residual)), residual


def stub_mamba_ssm():
    """Puts the classes above where MSST imports mamba_ssm's from."""
    parts = {
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


def published_model(**sizes):
    """MSST's ``BSMamba2Model`` as its configuration of the published model makes it."""
    stub_mamba_ssm()
    from msst.models.bs_mamba2_code.bs_mamba2 import BSMamba2Model

    fixed = {"stereo": True, "num_stems": 1, "stft_hop_length": 441, "module_type": "mamba2"}
    return BSMamba2Model(**{"dim": 256, "depth": 6} | fixed | sizes).eval()


def snr_db(reference, estimate):
    return 10 * math.log10(reference.square().sum() / (reference - estimate).square().sum())
