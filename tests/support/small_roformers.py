"""RoFormers small enough to trace in tests."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch
from torch import nn

from bsmamba2_network import RoFormer, RoFormerConfig
from bsmamba2_network.roformer_config import MEL, mel_bands
from support.msst_roformer import randomise

BS_SMALL = RoFormerConfig(
    n_fft=512, hop=128, bands=(32, 96, 129), dim=16, depth=2, heads=2, head_dim=16, mask_expand=1,
    chunk=22050, sample_rate=11025,
)  # fmt: skip
MEL_SMALL = replace(
    BS_SMALL,
    family=MEL,
    bands=tuple(width for _, width in mel_bands(4, 11025, 512)),
    stems=("drums", "bass"),
    mask_layers=2,
    linear_depth=1,
    skip_connection=True,
    zero_dc=True,
)


def small_roformer(config: RoFormerConfig) -> RoFormer:
    """Returns a network whose norms and rotation are not the initial ones."""
    torch.manual_seed(0)
    return cast("RoFormer", randomise(cast("nn.Module", RoFormer(config).eval())))
