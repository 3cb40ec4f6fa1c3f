"""The norm over a whole example, GroupNorm with one group, by means of two levels."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GlobalNorm(nn.Module):
    """(x − mean) / √(variance + 1e-5) · weight + bias, (b, C, …, T); weight and bias per channel.

    Mean and variance are taken over everything but the batch by :func:`mean_of_example`.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        per_channel = (-1, *[1] * (x.ndim - 2))
        x = x - mean_of_example(x)
        # One factor for each channel of each example: the fewest passes over x.
        factor = self.weight.view(per_channel) * torch.rsqrt(mean_of_example(x.square()) + 1e-5)
        return x * factor + self.bias.view(per_channel)


def mean_of_example(x: Tensor) -> Tensor:
    """Returns the mean over everything but the batch, first along the last axis.

    An example has up to some million elements, and a float32 sum of all of them in a row would be
    off by 1e-4 in ONNX Runtime.
    """
    return x.mean(-1, keepdim=True).mean(list(range(1, x.ndim - 1)), keepdim=True)
