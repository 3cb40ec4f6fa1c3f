"""MSST's own RoFormers, as the reference of ours.

Of librosa, MSST calls one function for them, the mel filter bank. It is written here from its
definition, independently of the project's rule.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from bsmamba2_network import RoFormerConfig


def mel_filters(*, sr: int, n_fft: int, n_mels: int) -> Any:
    """Triangles on Slaney's mel scale with equal areas, (n_mels, n_fft/2 + 1) in float32."""
    frequencies = np.arange(n_fft // 2 + 1) * sr / n_fft

    def to_mel(hz: float) -> float:
        return float(hz / (200 / 3) if hz < 1000 else 15 + np.log(hz / 1000) / (np.log(6.4) / 27))

    mels = np.linspace(0, to_mel(sr / 2), n_mels + 2)
    knots = np.where(mels < 15, mels * 200 / 3, 1000 * np.exp((mels - 15) * np.log(6.4) / 27))
    rows = []
    for low, centre, high in zip(knots, knots[1:], knots[2:], strict=False):
        rising, falling = (
            (frequencies - low) / (centre - low),
            (high - frequencies) / (high - centre),
        )
        rows.append(np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low))
    return np.array(rows, np.float32)


def reference(config: RoFormerConfig, **options: Any) -> nn.Module:
    """Builds MSST's network of these sizes, in evaluation mode, with its own random weights."""
    librosa = ModuleType("librosa")
    filters = ModuleType("librosa.filters")
    vars(filters)["mel"] = mel_filters
    vars(librosa)["filters"] = filters
    sys.modules.setdefault("librosa", librosa)
    sys.modules.setdefault("librosa.filters", filters)
    from msst.models.bs_roformer.bs_roformer import BSRoformer
    from msst.models.bs_roformer.mel_band_roformer import MelBandRoformer

    is_mel = config.family == "mel_band_roformer"
    sizes: dict[str, Any] = {
        "dim": config.dim,
        "depth": config.depth,
        "stereo": config.channels == 2,
        "num_stems": len(config.stems),
        "time_transformer_depth": config.time_depth,
        "freq_transformer_depth": config.band_depth,
        "linear_transformer_depth": config.linear_depth,
        "dim_head": config.head_dim,
        "heads": config.heads,
        "stft_n_fft": config.n_fft,
        "stft_hop_length": config.hop,
        "stft_win_length": config.n_fft,
        "mlp_expansion_factor": config.mask_expand,
        "skip_connection": config.skip_connection,
        "zero_dc": config.zero_dc,
        "flash_attn": False,
    }
    if is_mel:
        sizes |= {"num_bands": len(config.bands), "sample_rate": config.sample_rate}
        sizes |= {"mask_estimator_depth": config.mask_layers, "match_input_audio_length": True}
        return MelBandRoformer(**sizes | options).eval()  # type: ignore[no-any-return]
    sizes |= {"freqs_per_bands": config.bands, "mask_estimator_depth": config.mask_layers + 1}
    return BSRoformer(**sizes | options).eval()  # type: ignore[no-any-return]


def randomise(net: nn.Module, seed: int = 0) -> nn.Module:
    """Gives norms, temperatures and biases, which start as ones and zeros, other values too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in net.named_parameters():
            if name.endswith(("gamma", "temperature", "bias")):
                value += 0.2 * torch.randn(value.shape, generator=generator)
            if name.endswith("freqs"):
                value *= 1.05  # as if it had been trained
    return net
