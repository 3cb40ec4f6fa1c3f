"""The two ends that band-split networks share: from bins to features, and from features to masks.

BSMamba2 and the RoFormers have these parts under the same names in their checkpoints. A band's
numbers are its bins times the channels times two, because a bin has a real and an imaginary part.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import glu


class BandNorm(nn.Module):
    """x / max(‖x‖₂, 1e-12) · √d · gamma over the last axis."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min(1e-12)
        out: Tensor = x / length * math.sqrt(x.shape[-1]) * self.gamma
        return out


class BandSplit(nn.Module):
    """Maps each band's numbers to D features: (b, t, sum of the widths) to (b, t, K, D).

    Args:
        widths: numbers of each of the K bands.
        dim: D.
    """

    def __init__(self, widths: Sequence[int], dim: int) -> None:
        super().__init__()
        self.widths = list(widths)
        self.to_features = nn.ModuleList(
            nn.Sequential(BandNorm(width), nn.Linear(width, dim)) for width in widths
        )

    def forward(self, x: Tensor) -> Tensor:
        bands = x.split(self.widths, dim=-1)
        features = [net(band) for net, band in zip(self.to_features, bands, strict=True)]
        return torch.stack(features, dim=-2)


class MaskEstimator(nn.Module):
    """Maps the bands' features to one stem's mask: (b, t, K, D) to (b, t, sum of the widths).

    Args:
        widths: numbers of each of the K bands.
        dim: D.
        hidden: width of the hidden layers.
        layers: number of hidden layers.
    """

    def __init__(self, widths: Sequence[int], dim: int, hidden: int, layers: int = 1) -> None:
        super().__init__()
        self.to_freqs = nn.ModuleList(
            # The gate of the published layout has no weights, so only its place is kept.
            nn.Sequential(nn.Sequential(*_perceptron(dim, hidden, layers, 2 * width)))
            for width in widths
        )

    def forward(self, x: Tensor) -> Tensor:
        bands = x.split(1, dim=2)
        masks = [glu(net(band.squeeze(2))) for net, band in zip(self.to_freqs, bands, strict=True)]
        return torch.cat(masks, dim=-1)


def _perceptron(dim: int, hidden: int, layers: int, out: int) -> list[nn.Module]:
    """Returns ``layers`` times a linear map and tanh, then a linear map."""
    parts: list[nn.Module] = []
    for _ in range(layers):
        parts += [nn.Linear(dim, hidden), nn.Tanh()]
        dim = hidden
    return [*parts, nn.Linear(dim, out)]


def apply_masks(masks: Tensor, mixture: Tensor) -> Tensor:
    """Returns the complex product of masks (b, stems, …) and a spectrum (b, …), in real tensors."""
    mixture = mixture.unsqueeze(1)
    mask_re, mask_im = masks[..., 0], masks[..., 1]
    re, im = mixture[..., 0], mixture[..., 1]
    return torch.stack([mask_re * re - mask_im * im, mask_re * im + mask_im * re], dim=-1)
