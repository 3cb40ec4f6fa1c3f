"""HT Demucs' transformer: two sequences that attend to themselves and to each other in turn."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear, scaled_dot_product_attention

from bsmamba2_network.global_norm import GlobalNorm


class Scale(nn.Module):
    """A factor for each feature."""

    def __init__(self, width: int, initial: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((width,), initial))


class Attention(nn.Module):
    """Attention of one sequence to another, or to itself: (b, n, d) and (b, m, d) to (b, n, d)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        queries, keys, values = (
            linear(source, weight, bias).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for source, weight, bias in zip(
                (x, other, other),
                self.in_proj_weight.chunk(3),
                self.in_proj_bias.chunk(3),
                strict=True,
            )
        )
        mixed = scaled_dot_product_attention(queries, keys, values)
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return out


class Layer(nn.Module):
    """Attention and a feed-forward network, both residual, then a norm over the whole example."""

    def __init__(self, width: int, heads: int, cross: bool) -> None:
        super().__init__()
        self.cross = cross
        attention = Attention(width, heads)
        if cross:
            self.cross_attn = attention
            self.norm3 = nn.LayerNorm(width)
        else:
            self.self_attn = attention
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.linear1, self.linear2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.gamma_1, self.gamma_2 = Scale(width, 1e-4), Scale(width, 1e-4)
        self.norm_out = GlobalNorm(width)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        """Maps (b, n, d) to the same; only a cross layer reads the other sequence."""
        if self.cross:
            mixed = self.cross_attn(self.norm1(x), self.norm2(other))
        else:
            normed = self.norm1(x)
            mixed = self.self_attn(normed, normed)
        x = x + self.gamma_1.scale * mixed
        normed = (self.norm3 if self.cross else self.norm2)(x)
        x = x + self.gamma_2.scale * self.linear2(gelu(self.linear1(normed)))
        out: Tensor = self.norm_out(x.mT)
        return out.mT


class CrossTransformer(nn.Module):
    """Layers for the tokens of a spectrum and those of a waveform; the even ones see only one."""

    def __init__(self, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.norm_in, self.norm_in_t = nn.LayerNorm(width), nn.LayerNorm(width)
        self.layers, self.layers_t = (
            nn.ModuleList(Layer(width, heads, cross=bool(i % 2)) for i in range(layers))
            for _ in range(2)
        )

    def forward(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Maps a spectrum (b, d, rows, frames) and a waveform (b, d, steps) to the same shapes."""
        rows, frames, steps = x.shape[2], x.shape[3], t.shape[2]
        x = self.norm_in(x.transpose(1, 3).flatten(1, 2))  # (b, frames · rows, d)
        x = x + plane_embedding(frames, rows, x)
        t = self.norm_in_t(t.mT)
        t = t + line_embedding(steps, t)
        for layer, layer_t in zip(self.layers, self.layers_t, strict=True):
            x, t = layer(x, t), layer_t(t, x)
        return x.unflatten(1, (frames, rows)).transpose(1, 3), t.mT


def line_embedding(steps: int, like: Tensor) -> Tensor:
    """Returns the embedding of positions on a line, (steps, d): all cosines, then all sines."""
    half = like.shape[-1] // 2
    index = torch.arange(half, device=like.device, dtype=like.dtype)
    position = torch.arange(steps, device=like.device, dtype=like.dtype)
    phase = position[:, None] / 10000 ** (index / (half - 1))
    return torch.cat([phase.cos(), phase.sin()], dim=-1)


def plane_embedding(frames: int, rows: int, like: Tensor) -> Tensor:
    """Returns the embedding of positions in a plane, (frames · rows, d).

    The first half of the features is the frame, the second the row; sines and cosines alternate.
    """
    half = like.shape[-1] // 2

    def along(count: int) -> Tensor:
        index = torch.arange(0, half, 2, device=like.device, dtype=like.dtype)
        position = torch.arange(count, device=like.device, dtype=like.dtype)
        phase = position[:, None] * torch.exp(index * -(math.log(10000) / half))
        return torch.stack([phase.sin(), phase.cos()], dim=-1).flatten(1)  # (count, half)

    time = along(frames)[:, None].expand(frames, rows, half)
    frequency = along(rows)[None].expand(frames, rows, half)
    return torch.cat([time, frequency], dim=-1).flatten(0, 1)
