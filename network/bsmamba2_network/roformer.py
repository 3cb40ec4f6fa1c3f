"""BS-RoFormer and Mel-Band RoFormer: band split, attention along time and bands, masks.

Sources: Lu et al. 2023, "Music Source Separation with Band-Split RoPE Transformer" (arXiv
2309.02612); Wang et al. 2023, "Mel-Band RoFormer for Music Source Separation" (arXiv 2310.01809).
The two differ in their bands and in where they normalise. The module tree gives the parameters the
same names as in the checkpoints of Music-Source-Separation-Training (MSST).
"""

from __future__ import annotations

import os
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from bsmamba2_network import checkpoints, spectrum
from bsmamba2_network.attention import rotary_attention
from bsmamba2_network.bands import BandNorm, BandSplit, MaskEstimator, apply_masks
from bsmamba2_network.roformer_config import BS, MEL, RoFormerConfig, mel_bands

FEED_FORWARD = 4
"""Hidden width of a feed-forward part relative to D, in every network of this layout."""

LINEAR_SCALE = 8.0
"""Factor of the scores of linear attention."""


class RotaryEmbedding(nn.Module):
    """The angle per position of each pair of features; all blocks along one axis share it."""

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        exponents = torch.arange(0, head_dim, 2).float() / head_dim
        self.freqs = nn.Parameter(10000.0**-exponents, requires_grad=False)


class Attention(nn.Module):
    """Attention of a sequence to itself, (batch, L, D) to (batch, L, D), without the residual."""

    def __init__(self, config: RoFormerConfig, rotary_embed: RotaryEmbedding) -> None:
        super().__init__()
        inner = config.heads * config.head_dim
        self.heads = config.heads
        self.rotary_embed = rotary_embed
        self.norm = BandNorm(config.dim)
        self.to_qkv = nn.Linear(config.dim, 3 * inner, bias=False)
        self.to_gates = nn.Linear(config.dim, config.heads)
        self.to_out = nn.Sequential(nn.Linear(inner, config.dim, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        qkv, gates = self.to_qkv(x), self.to_gates(x)
        out: Tensor = self.to_out(rotary_attention(qkv, gates, self.rotary_embed.freqs, self.heads))
        return out


class LinearAttention(nn.Module):
    """Attention among the features of a head, whose cost is linear in L: (batch, L, D) unchanged.

    Source: El-Nouby et al. 2021, "XCiT" (arXiv 2106.09681).
    """

    def __init__(self, config: RoFormerConfig) -> None:
        super().__init__()
        inner = config.heads * config.head_dim
        self.heads = config.heads
        self.norm = BandNorm(config.dim)
        self.to_qkv = nn.Sequential(nn.Linear(config.dim, 3 * inner, bias=False))
        self.temperature = nn.Parameter(torch.ones(config.heads, 1, 1))
        self.to_out = nn.Sequential(nn.Identity(), nn.Linear(inner, config.dim, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.to_qkv(self.norm(x)).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 4, 1)  # (batch, H, P, L)
        q, k = normalize(q, dim=-1) * self.temperature.exp(), normalize(k, dim=-1)
        y = (q @ k.mT * LINEAR_SCALE).softmax(-1) @ v
        out: Tensor = self.to_out(y.permute(0, 3, 1, 2).flatten(2))
        return out


class FeedForward(nn.Module):
    """Norm, D to 4·D, GELU, 4·D to D, per token, without the residual."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = FEED_FORWARD * dim
        self.net = nn.Sequential(
            BandNorm(dim),
            nn.Linear(dim, hidden),
            nn.GELU(),
            nn.Identity(),  # the place of a dropout
            nn.Linear(hidden, dim),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out


class Transformer(nn.Module):
    """Blocks of attention and feed-forward: (batch, L, D) to (batch, L, D).

    Args:
        config: the sizes.
        depth: number of blocks.
        rotary_embed: the positions' angles. None: the blocks have linear attention.
    """

    def __init__(
        self, config: RoFormerConfig, depth: int, rotary_embed: RotaryEmbedding | None
    ) -> None:
        super().__init__()

        def attention() -> nn.Module:
            return Attention(config, rotary_embed) if rotary_embed else LinearAttention(config)

        self.layers = nn.ModuleList(
            nn.ModuleList([attention(), FeedForward(config.dim)]) for _ in range(depth)
        )
        self.norm = BandNorm(config.dim) if config.family == MEL else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        for block in self.layers:
            attend, feed_forward = cast("nn.ModuleList", block)
            x = attend(x) + x
            x = feed_forward(x) + x
        out: Tensor = self.norm(x)
        return out


class RoFormer(checkpoints.StoredNetwork):
    """The network: from a waveform to stems, internally from a spectrum to spectra.

    Args:
        config: the family and the sizes.
    """

    config: RoFormerConfig

    def __init__(self, config: RoFormerConfig) -> None:
        super().__init__()
        self.config = config
        time, bands = RotaryEmbedding(config.head_dim), RotaryEmbedding(config.head_dim)
        self.layers = nn.ModuleList(self._layer(time, bands) for _ in range(config.depth))
        self.final_norm = BandNorm(config.dim) if config.family == BS else nn.Identity()
        self.band_split = BandSplit(config.widths, config.dim)
        self.mask_estimators = nn.ModuleList(
            MaskEstimator(
                config.widths, config.dim, config.mask_expand * config.dim, config.mask_layers
            )
            for _ in config.stems
        )
        if config.family == MEL:
            self.overlap = Overlap(mel_bands(len(config.bands), config.sample_rate, config.n_fft))

    def _layer(self, time: RotaryEmbedding, bands: RotaryEmbedding) -> nn.ModuleList:
        config = self.config
        parts = [
            Transformer(config, config.time_depth, time),
            Transformer(config, config.band_depth, bands),
        ]
        if config.linear_depth:
            parts.insert(0, Transformer(config, config.linear_depth, None))
        return nn.ModuleList(parts)

    @classmethod
    def untrained(cls, size: str, seed: int = 0) -> RoFormer:
        """Returns a published size with random weights from a seed, for tests and timing."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(RoFormerConfig.preset(size)).eval()

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        config: str | os.PathLike[str] | RoFormerConfig | None = None,
    ) -> RoFormer:
        """Reads a checkpoint: MSST's ``.ckpt``, or a ``.safetensors`` with the same keys.

        Args:
            path: the file, or a name from ``bsmamba2 models``. Nothing in it is ever executed.
            config: MSST's yaml, or the sizes. Default: the sizes in the file's metadata, else
                those derived from the weights' shapes; see :meth:`RoFormerConfig.from_shapes` for
                what shapes cannot tell.

        Raises:
            ModelError: the file is not such a checkpoint, or contradicts the config; the message
                names every key that is missing, unexpected or of the wrong shape.
        """
        return checkpoints.load(cls, RoFormerConfig, path, config)

    def masks(self, mixture: Tensor, grouped: bool = False) -> Tensor:
        """Computes complex masks for a spectrum.

        Args:
            mixture: (b, channels, frames, F, 2), real and imaginary parts last.
            grouped: as for :meth:`separate_spectrum`.

        Returns:
            (b, stems, channels, frames, F, 2), unbounded.
        """
        config = self.config
        batch, channels, frames = mixture.shape[:3]
        x = mixture.permute(0, 2, 3, 1, 4)  # (b, t, F, c, 2)
        if config.family == MEL:
            x = self.overlap.gather(x, dim=2)
        x = self.band_split(x.flatten(2), grouped)  # (b, t, K, D)

        bands = x.shape[2]
        total: Tensor | None = None  # of the outputs of all earlier layers
        for layer in self.layers:
            *linear, along_time, along_bands = cast("nn.ModuleList", layer)
            for transformer in linear:
                x = transformer(x.flatten(1, 2)).reshape(batch, frames, bands, config.dim)
            if total is not None:
                x = x + total
            x = x.transpose(1, 2).reshape(batch * bands, frames, config.dim)
            x = along_time(x)
            x = x.reshape(batch, bands, frames, config.dim).transpose(1, 2)
            x = x.reshape(batch * frames, bands, config.dim)
            x = along_bands(x).reshape(batch, frames, bands, config.dim)
            if config.skip_connection:
                total = x if total is None else total + x

        x = self.final_norm(x)
        mask = torch.stack([estimator(x, grouped) for estimator in self.mask_estimators], dim=1)
        mask = mask.reshape(batch, len(config.stems), frames, -1, channels, 2)
        if config.family == MEL:
            mask = self.overlap.average(mask, dim=3)
        return mask.permute(0, 1, 4, 2, 3, 5)

    def separate_spectrum(self, mixture: Tensor, grouped: bool = False) -> Tensor:
        """Separates a spectrum: the masks times the mixture, in real tensors. This is exported.

        Args:
            mixture: (b, channels, frames, F, 2).
            grouped: whether bands of equal width run as one product; see
                :mod:`bsmamba2_network.bands`.

        Returns:
            (b, stems, channels, frames, F, 2), also where ``zero_dc`` is set: the caller applies
            that.
        """
        return apply_masks(self.masks(mixture, grouped), mixture)

    def forward(self, waveform: Tensor) -> Tensor:
        """Separates a waveform into stems.

        Args:
            waveform: (b, channels, samples) at the configuration's sample rate.

        Returns:
            (b, stems, channels, samples).
        """
        config = self.config
        stems = self.separate_spectrum(spectrum.stft(waveform, config.n_fft, config.hop))
        if config.zero_dc:
            stems = spectrum.without_dc(stems)
        return spectrum.istft(stems, config.n_fft, config.hop, waveform.shape[-1])


class Overlap(nn.Module):
    """Bands that overlap: each bin is in one or two of them.

    Args:
        bands: each band's first bin and width, so that together they contain all bins.
    """

    def __init__(self, bands: list[tuple[int, int]]) -> None:
        super().__init__()
        bins = [k for first, width in bands for k in range(first, first + width)]
        last = {k: place for place, k in enumerate(bins)}
        first = {bins[place]: place for place in reversed(range(len(bins)))}
        # Not in checkpoints: they follow from the rule.
        self.bins = _indices(bins)
        self.first = _indices([first[k] for k in sorted(first)])
        self.last = _indices([last[k] for k in sorted(last)])

    def gather(self, spectrum: Tensor, dim: int) -> Tensor:
        """Returns the bins of all bands, one band after the other."""
        return spectrum.index_select(dim, self.bins)

    def average(self, masks: Tensor, dim: int) -> Tensor:
        """Returns each bin's mean over its bands, which is exact where there is only one."""
        return (masks.index_select(dim, self.first) + masks.index_select(dim, self.last)) * 0.5


def _indices(values: list[int]) -> nn.Buffer:
    """Returns constant indices, which have values even while weights have none."""
    return nn.Buffer(torch.tensor(values, device="cpu"), persistent=False)
