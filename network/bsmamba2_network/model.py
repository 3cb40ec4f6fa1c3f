"""BSMamba2: band split, bidirectional Mamba2 along time and along the bands, one mask per stem.

Source: Kim and Choi 2025, "Mamba2 Meets Silence: Robust Vocal Source Separation for Sparse
Regions" (arXiv 2508.14556). The module tree gives the parameters the same names as in published
checkpoints.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from bsmamba2_network import checkpoints, fused, spectrum
from bsmamba2_network.bands import (
    BandNorm,
    BandSplit,
    MaskEstimator,
    apply_masks,
    root_mean_square_norm,
)
from bsmamba2_network.config import CONV_WIDTH, Config
from bsmamba2_network.scan import mamba2_scan

NORM_EPSILON = 1e-5

State = tuple[Tensor, Tensor]
"""A scan's state for n sequences: conv (n, conv channels, width − 1) and ssm (n, H, P, N).

With n = 1 all sequences share it.
"""


class MixerNorm(nn.Module):
    """x / √(mean(x²) + 1e-5) · weight over the last axis."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        return root_mean_square_norm(x, NORM_EPSILON) * self.weight


class Mamba2(nn.Module):
    """A mixer: in_proj, the scan, out_proj; (batch, L, D) to (batch, L, D).

    Initialised as in the authors' code: Δ log-uniform in [0.001, 0.1], A uniform in [1, 16], D = 1.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        heads, d_inner, channels = config.heads, config.d_inner, config.conv_channels
        self.in_proj = nn.Linear(config.dim, d_inner + channels + heads, bias=False)
        # Never called. It only holds the scan's convolution weights under their published names.
        self.conv1d = nn.Conv1d(channels, channels, CONV_WIDTH, groups=channels)
        delta = torch.exp(torch.empty(heads).uniform_(math.log(0.001), math.log(0.1)))
        self.dt_bias = nn.Parameter(delta + torch.log(-torch.expm1(-delta)))
        self.A_log = nn.Parameter(torch.empty(heads).uniform_(1, 16).log())
        self.D = nn.Parameter(torch.ones(heads))
        self.norm = MixerNorm(d_inner)
        self.out_proj = nn.Linear(d_inner, config.dim, bias=False)

    def forward(self, u: Tensor, start: State, reverse: bool) -> tuple[Tensor, State]:
        y, end = self.scan(self.in_proj(u), start, reverse)
        return self.out_proj(y), end

    def scan(self, zxbcdt: Tensor, start: State, reverse: bool) -> tuple[Tensor, State]:
        """Computes what is between in_proj and out_proj; see :func:`mamba2_scan`."""
        assert self.conv1d.bias is not None
        y, *end = mamba2_scan(
            zxbcdt,
            self.conv1d.weight,
            self.conv1d.bias,
            self.dt_bias,
            self.A_log,
            self.D,
            self.norm.weight,
            *start,
            self.config.head_dim,
            self.config.state_size,
            reverse,
            NORM_EPSILON,
        )
        return y, (end[0], end[1])

    def is_fused(self, x: Tensor) -> bool:
        """Returns whether :meth:`fused` can be called with ``x``."""
        return fused.supports(x, self.config.head_dim, self.config.state_size)

    def fused(
        self, x: Tensor, norm_weight: Tensor, start: State, reverse: bool, needs_state: bool
    ) -> tuple[Tensor, State | None]:
        """Computes the residual and norm around the mixer too, for training on a CPU."""
        conv = self.conv1d
        assert conv.bias is not None
        weights = (conv.weight, conv.bias, self.dt_bias, self.A_log, self.D, self.norm.weight)
        return fused.direction(
            x, norm_weight, self.in_proj.weight, weights, self.out_proj.weight, start,
            self.config.head_dim, self.config.state_size, reverse, NORM_EPSILON,
            needs_state=needs_state,
        )  # fmt: skip


class Direction(nn.Module):
    """x + mixer(norm(x)), forwards or backwards along the sequence.

    Returns the result and the final state. With a cut, the sequence runs as two parts, the second
    starting from the first's final state, and the returned state is the one at the cut. Without
    ``needs_state`` the state may be None.
    """

    def __init__(self, config: Config, reverse: bool) -> None:
        super().__init__()
        self.reverse = reverse
        self.norm = MixerNorm(config.dim)
        self.mixer = Mamba2(config)

    def forward(
        self, x: Tensor, start: State, cut: int | None = None, needs_state: bool = True
    ) -> tuple[Tensor, State | None]:
        if cut is None:
            if self.mixer.is_fused(x):
                return self.mixer.fused(x, self.norm.weight, start, self.reverse, needs_state)
            y, end = self.mixer(self.norm(x), start, self.reverse)
            return x + y, end
        before, between = self(x[:, :cut], start)
        after, _ = self(x[:, cut:], between, needs_state=False)
        return torch.cat([before, after], dim=1), between


class Block(nn.Module):
    """Both directions along one axis, joined: y = x + W·[f ; g] + b; the shape is (batch, L, D).

    Both directions start from ``zero``; if ``carried`` is given, the forward direction continues
    from it instead. Returns the result and, if ``carried`` is given, the forward direction's state,
    at the cut if there is one.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.forward_blocks = nn.ModuleList([Direction(config, reverse=False)])
        self.backward_blocks = nn.ModuleList([Direction(config, reverse=True)])
        # A matrix product, stored as the transposed convolution of width 1 in the checkpoints.
        self.linear = nn.ConvTranspose1d(2 * config.dim, config.dim, 1)

    def forward(
        self, x: Tensor, zero: State, carried: State | None = None, cut: int | None = None
    ) -> tuple[Tensor, State | None]:
        needs_state = carried is not None
        f, carried = self.forward_blocks[0](x, carried or zero, cut, needs_state)
        g, _ = self.backward_blocks[0](x, zero, needs_state=False)
        if cast("Direction", self.forward_blocks[0]).mixer.is_fused(x):
            assert self.linear.bias is not None
            weight, bias = self.linear.weight[:, :, 0], self.linear.bias
            return fused.join(x, f, g, weight, bias), carried
        both = torch.cat([f, g], -1)
        assert self.linear.bias is not None
        return x + both @ self.linear.weight[:, :, 0] + self.linear.bias, carried


class BSMamba2(checkpoints.StoredNetwork):
    """The network: from a waveform to stems, internally from a spectrum to spectra.

    Args:
        config: the sizes. Default: the paper's.
    """

    config: Config

    def __init__(self, config: Config | None = None) -> None:
        super().__init__()
        self.config = config = config or Config()
        self.band_split = BandSplit(config.widths, config.dim)
        self.layers = nn.ModuleList(
            nn.ModuleList([Block(config), Block(config)]) for _ in range(config.depth)
        )
        self.final_norm = BandNorm(config.dim)
        self.mask_estimators = nn.ModuleList(
            MaskEstimator(config.widths, config.dim, config.mask_expand * config.dim)
            for _ in config.stems
        )

    @classmethod
    def untrained(cls, preset: str = "paper", seed: int = 0) -> BSMamba2:
        """Returns a preset with random weights from a seed, for tests and timing."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(Config.preset(preset)).eval()

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], config: str | os.PathLike[str] | Config | None = None
    ) -> BSMamba2:
        """Reads a checkpoint: our ``.safetensors``, MSST's ``.ckpt``, the authors' Lightning file.

        Args:
            path: the file, or a name from ``bsmamba2 models``. Nothing in it is ever executed.
            config: MSST's yaml, or the sizes. Default: the sizes in the file's metadata, else
                those derived from the weights' shapes, with the paper's hop and chunk.

        Raises:
            ModelError: the file is not a BSMamba2 checkpoint, or has other sizes; the message
                names every key that is missing, unexpected or of the wrong shape.
        """
        return checkpoints.load(cls, Config, path, config)

    def masks(self, mixture: Tensor) -> Tensor:
        """Computes complex masks for a spectrum.

        Args:
            mixture: (b, channels, frames, F, 2), real and imaginary parts last.

        Returns:
            (b, stems, channels, frames, F, 2), unbounded.
        """
        return self._masks(mixture)[0]

    def separate_spectrum(self, mixture: Tensor, grouped: bool = False) -> Tensor:
        """Separates a spectrum: the masks times the mixture, in real tensors. This is exported.

        Args:
            mixture: (b, channels, frames, F, 2).
            grouped: whether bands of equal width run as one product; see
                :mod:`bsmamba2_network.bands`.

        Returns:
            (b, stems, channels, frames, F, 2).
        """
        masks, _ = self._masks(mixture, grouped=grouped)
        return self._apply_masks(masks, mixture)

    def start(self) -> list[State]:
        """Returns the states before a stream's first step: zeros of batch 1, one pair per layer."""
        return [self._zero(self.final_norm.gamma) for _ in self.layers]

    def step(
        self, block: Tensor, lookahead: Tensor, states: Sequence[State]
    ) -> tuple[Tensor, Tensor, list[State]]:
        """Runs one step of a stream: separates the next block, using the lookahead after it.

        Along time, the forward scans continue from the end of the previous block, and the backward
        scans start from zero at the end of the lookahead:

            carried ──▶│ block ────▶│ lookahead ▶│
                       │            └─▶ next     │
                       │◀───────────────── block │◀── zero

        Args:
            block: (b, channels, frames, F, 2), the frames after the previous block.
            lookahead: (b, channels, frames ≥ 1, F, 2), the frames after the block. The following
                steps receive them again. In a stream's last step the block holds all remaining
                frames but one, the lookahead holds that one, and both results are kept.
            states: one pair per layer, of batch b·K or 1; from :meth:`start` or the previous step.

        Returns:
            The stems of the block and of the lookahead, (b, stems, channels, frames, F, 2), and
            the states after the block.
        """
        cut = block.shape[2]
        mixture = torch.cat([block, lookahead], dim=2)
        masks, states = self._masks(mixture, states, cut)
        stems = self._apply_masks(masks, mixture)
        return stems[:, :, :, :cut], stems[:, :, :, cut:], states

    def _masks(
        self,
        mixture: Tensor,
        carried: Sequence[State] | None = None,
        cut: int | None = None,
        grouped: bool = False,
    ) -> tuple[Tensor, list[State]]:
        """Computes the masks and, with a cut, each layer's state along time there."""
        config = self.config
        batch, channels, frames = mixture.shape[:3]
        x = mixture.permute(0, 2, 3, 1, 4).flatten(2)  # (b, t, F·c·2)
        x = self.band_split(x, grouped)  # (b, t, K, D)

        zero = self._zero(x)
        bands, states = x.shape[2], []
        for i, layer in enumerate(self.layers):
            along_time, along_bands = cast("nn.ModuleList", layer)
            x = x.transpose(1, 2).reshape(batch * bands, frames, config.dim)
            x, state = along_time(x, zero, carried[i] if carried else None, cut)
            states.append(state)
            x = x.reshape(batch, bands, frames, config.dim).transpose(1, 2)
            x = x.reshape(batch * frames, bands, config.dim)
            x, _ = along_bands(x, zero)
            x = x.reshape(batch, frames, bands, config.dim)

        x = self.final_norm(x)
        mask = torch.stack([estimator(x, grouped) for estimator in self.mask_estimators], dim=1)
        mask = mask.reshape(batch, len(config.stems), frames, config.bins, channels, 2)
        return mask.permute(0, 1, 4, 2, 3, 5), states

    def _apply_masks(self, masks: Tensor, mixture: Tensor) -> Tensor:
        is_fused = fused.supports(masks, self.config.head_dim, self.config.state_size)
        return fused.apply_masks(masks, mixture) if is_fused else apply_masks(masks, mixture)

    def _zero(self, like: Tensor) -> State:
        """Returns the state before any step, of batch 1."""
        config = self.config
        return (
            like.new_zeros(1, config.conv_channels, CONV_WIDTH - 1),
            like.new_zeros(1, config.heads, config.head_dim, config.state_size),
        )

    def forward(self, waveform: Tensor) -> Tensor:
        """Separates a waveform into stems.

        Args:
            waveform: (b, channels, samples) at the configuration's sample rate.

        Returns:
            (b, stems, channels, samples).
        """
        config = self.config
        mixture = spectrum.stft(waveform, config.n_fft, config.hop)
        stems = self.separate_spectrum(mixture)
        return spectrum.istft(stems, config.n_fft, config.hop, waveform.shape[-1])
