"""SCNet from MSST and HT Demucs from the package demucs, with random weights."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import nn

from bsmamba2_network.htdemucs_config import HTDemucsConfig
from bsmamba2_network.scnet_config import SCNetConfig


def published_scnet(config: SCNetConfig) -> Any:
    """Returns MSST's SCNet of these sizes."""
    return importlib.import_module("msst.models.scnet").SCNet(
        sources=list(config.stems),
        audio_channels=config.channels,
        dims=[2 * config.channels, *config.widths],
        nfft=config.n_fft,
        hop_size=config.hop,
        win_size=config.n_fft,
        band_SR=list(config.band_fractions),
        band_stride=list(config.strides),
        band_kernel=list(config.kernels),
        conv_depths=list(config.conv_depths),
        num_dplayer=config.dual_paths,
    )


def published_options(config: HTDemucsConfig) -> dict[str, Any]:
    """Returns the options of demucs' HT Demucs of these sizes."""
    return {
        "sources": list(config.stems),
        "audio_channels": config.channels,
        "channels": config.width,
        "nfft": config.n_fft,
        "depth": config.depth,
        "dconv_mode": 3,
        "bottom_channels": config.bottom,
        "t_layers": config.layers,
        "t_heads": config.heads,
        "segment": config.chunk / config.sample_rate,
    }


def published_htdemucs(config: HTDemucsConfig) -> Any:
    """Returns demucs' HT Demucs of these sizes."""
    return importlib.import_module("demucs.htdemucs").HTDemucs(**published_options(config))


def randomised(net: nn.Module, seed: int = 0) -> nn.Module:
    """Changes norms, biases and scales, in place, so that each affects the output."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in net.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return net.eval()
