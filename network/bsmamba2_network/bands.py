"""The two ends that band-split networks share: from bins to features, and from features to masks.

BSMamba2 and the RoFormers have these parts under the same names in their checkpoints. A band's
numbers are its bins times the channels times two, because a bin has a real and an imaginary part.

Both ends have two forms that compute the same. One band after the other needs the least memory, and
suits a CPU. Neighbouring bands of equal width as one batched product are about ten operations
instead of hundreds, and suit a GPU, where a small operation takes as long as its launch.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import glu


class BandNorm(nn.Module):
    """x / ‖x‖₂ · √d · gamma over the last axis; 0 for 0."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        return normalised(x) * self.gamma


def normalised(x: Tensor) -> Tensor:
    """Returns x / ‖x‖₂ · √d over the last axis, as x / √(mean(x²) + ε).

    The published networks compute x / max(‖x‖₂, 1e-12); ε makes the same of 0, and differs where
    a norm is below 1e-9. ONNX Runtime runs this form as one operation. Narrow input is computed in
    float32.
    """
    exact = x.to(torch.promote_types(x.dtype, torch.float32))
    return root_mean_square_norm(exact, 1e-24 / x.shape[-1])


def root_mean_square_norm(x: Tensor, epsilon: float) -> Tensor:
    """Returns x / √(mean(x²) + ε) over the last axis."""
    return x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + epsilon)


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

    def forward(self, x: Tensor, grouped: bool = False) -> Tensor:
        if grouped:
            return self._by_groups(x)
        bands = x.split(self.widths, dim=-1)
        features = [net(band) for net, band in zip(self.to_features, bands, strict=True)]
        return torch.stack(features, dim=-2)

    def _by_groups(self, x: Tensor) -> Tensor:
        features, at = [], 0
        for nets, width in groups(self.to_features, self.widths):
            bands = x[..., at : at + width * len(nets)].unflatten(-1, (len(nets), width))
            at += width * len(nets)
            bands = normalised(bands) * torch.stack([net[0].gamma for net in nets])
            features.append(_batched(bands, [net[1] for net in nets]))
        return torch.cat(features).permute(1, 2, 0, 3)


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
        self.widths = list(widths)
        self.to_freqs = nn.ModuleList(
            # The gate of the published layout has no weights, so only its place is kept.
            nn.Sequential(nn.Sequential(*_perceptron(dim, hidden, layers, 2 * width)))
            for width in widths
        )

    def forward(self, x: Tensor, grouped: bool = False) -> Tensor:
        if grouped:
            return self._by_groups(x)
        bands = x.split(1, dim=2)
        masks = [glu(net(band.squeeze(2))) for net, band in zip(self.to_freqs, bands, strict=True)]
        return torch.cat(masks, dim=-1)

    def _by_groups(self, x: Tensor) -> Tensor:
        # Every second part of a perceptron is a linear map, and no other is used here.
        nets = [cast("Sequence[nn.Linear]", cast("nn.Sequential", n)[0]) for n in self.to_freqs]
        hidden = torch.tanh(_batched(x, [net[0] for net in nets]))  # (K, b, t, hidden)
        for layer in range(2, len(nets[0]) - 1, 2):
            linear = [net[layer] for net in nets]
            hidden = torch.tanh(_batched(hidden.permute(1, 2, 0, 3), linear))
        masks, at = [], 0
        for linear, _ in groups([net[-1] for net in nets], self.widths):
            part = hidden[at : at + len(linear)].permute(1, 2, 0, 3)
            at += len(linear)
            masks.append(glu(_batched(part, linear)).permute(1, 2, 0, 3).flatten(2))
        return torch.cat(masks, dim=-1)


def groups(nets: Iterable[Any], widths: Sequence[int]) -> list[tuple[list[Any], int]]:
    """Returns neighbours of equal width: the networks of their bands, and the width."""
    pairs = itertools.groupby(zip(nets, widths, strict=True), key=lambda pair: pair[1])
    return [([net for net, _ in run], width) for width, run in pairs]


def _batched(x: Tensor, linear: Sequence[nn.Linear]) -> Tensor:
    """Applies a linear map to each band: (b, t, n, d) to (n, b, t, out)."""
    weight = torch.stack([part.weight for part in linear])
    bias = torch.stack([part.bias for part in linear])
    out = x.permute(2, 0, 1, 3).flatten(1, 2) @ weight.mT + bias[:, None]
    unflattened: Tensor = out.unflatten(1, x.shape[:2])
    return unflattened


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
