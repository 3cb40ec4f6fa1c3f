"""SCNet: rows of the spectrum joined by band, LSTMs along both axes, spectra of the stems.

Source: Tong et al. 2024, "SCNet: Sparse Compression Network for Music Source Separation" (arXiv
2401.13276). The module tree gives the parameters the same names as in published checkpoints.

Inside, a spectrum is (b, C, F, T): the rows F are frequencies, and the columns T are frames.
"""

from __future__ import annotations

import math
import os
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, gelu, glu, pad

from bsmamba2_network import checkpoints, spectrum
from bsmamba2_network.global_norm import GlobalNorm
from bsmamba2_network.scnet_config import SCNetConfig


class ConvBlocks(nn.Module):
    """Residual convolutions along the frames of each row, then GELU; (b, C, F, T) to the same."""

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        hidden = channels // 4
        self.layers = nn.ModuleList(
            nn.Sequential(
                GlobalNorm(channels),
                nn.Conv1d(channels, 2 * hidden, 3, padding=1),
                nn.GLU(dim=1),
                nn.Conv1d(hidden, hidden, 3, padding=1, groups=hidden),
                GlobalNorm(hidden),
                nn.SiLU(),
                nn.Conv1d(hidden, channels, 1),
            )
            for _ in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, rows, frames = x.shape
        x = x.transpose(1, 2).reshape(batch * rows, channels, frames)
        for layer in self.layers:
            x = x + layer(x)
        return gelu(x).reshape(batch, rows, channels, frames).transpose(1, 2)


class Downsampling(nn.Module):
    """Divides the rows into bands, and joins neighbouring rows of each by a strided convolution."""

    def __init__(self, config: SCNetConfig, stage: int, channels: int) -> None:
        super().__init__()
        self.rows = config.band_rows[stage]
        sizes = list(zip(config.kernels, config.strides, strict=True))
        self.convs = nn.ModuleList(
            nn.Conv2d(channels, config.widths[stage], (kernel, 1), (stride, 1))
            for kernel, stride in sizes
        )
        # Rows of zeros around each band, the odd one below it.
        missing = [
            kernel - stride + -rows % stride
            for (kernel, stride), rows in zip(sizes, self.rows, strict=True)
        ]
        self.padding = [(n // 2, n - n // 2) for n in missing]

    def forward(self, x: Tensor) -> list[Tensor]:
        bands = zip(self.convs, x.split(self.rows, dim=2), self.padding, strict=True)
        return [conv(pad(band, (0, 0, *edges))) for conv, band, edges in bands]


class Encoder(nn.Module):
    """One stage; returns its output, and what the decoder adds to its own."""

    def __init__(self, config: SCNetConfig, stage: int) -> None:
        super().__init__()
        width = config.widths[stage]
        before = config.widths[stage - 1] if stage else 2 * config.channels
        self.SDlayer = Downsampling(config, stage, before)
        self.conv_modules = nn.ModuleList(ConvBlocks(width, n) for n in config.conv_depths)
        self.globalconv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        bands = zip(self.conv_modules, self.SDlayer(x), strict=True)
        skip = torch.cat([blocks(band) for blocks, band in bands], dim=2)
        return self.globalconv(skip), skip


class Fusion(nn.Module):
    """Adds the encoder's output, then a gated convolution; (b, C, F, T) to the same.

    The published network convolves the channels twice side by side. The sum of the two halves of
    the weights gives the same for half the work.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        first, second = self.conv.weight.chunk(2, dim=1)
        return glu(conv2d(x + skip, first + second, self.conv.bias, padding=1), dim=1)


class Upsampling(nn.Module):
    """Returns each band to the rows that it had before a stage of the encoder."""

    def __init__(self, config: SCNetConfig, stage: int, channels: int) -> None:
        super().__init__()
        self.rows = config.band_rows[stage]
        strides = config.strides
        self.joined = [-(-n // step) for n, step in zip(self.rows, strides, strict=True)]
        self.convtrs = nn.ModuleList(
            nn.ConvTranspose2d(config.widths[stage], channels, (kernel, 1), (stride, 1))
            for kernel, stride in zip(config.kernels, strides, strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        bands = []
        for conv, band, rows in zip(
            self.convtrs, x.split(self.joined, dim=2), self.rows, strict=True
        ):
            band = conv(band)
            start = (band.shape[2] - rows) // 2
            bands.append(band[:, :, start : start + rows])
        return torch.cat(bands, dim=2)


@torch.library.custom_op("bsmamba2::bidirectional_lstm", mutates_args=())
def bidirectional_lstm(x: Tensor, weights: list[Tensor]) -> Tensor:
    """An LSTM in both directions as one operator, which the export maps to one ONNX node.

    Args:
        x: (n, L, D).
        weights: those of ``nn.LSTM`` in their order, of the forward and the backward direction.

    Returns:
        (n, L, 2·H).
    """
    start = x.new_zeros(2, x.shape[0], weights[1].shape[1])
    result: Tensor = torch.lstm(x, (start, start), weights, True, 1, 0.0, False, True, True)[0]
    return result.contiguous()


@bidirectional_lstm.register_fake
def _shape(x: Tensor, weights: list[Tensor]) -> Tensor:
    return x.new_empty(x.shape[0], x.shape[1], 2 * weights[1].shape[1])


class BidirectionalLSTM(nn.LSTM):
    """(n, L, D) to (n, L, 2·D)."""

    def __init__(self, width: int) -> None:
        super().__init__(width, width, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        if torch.compiler.is_exporting():  # torch.export would unroll it
            weights = [getattr(self, name) for name in self._flat_weights_names]
            exported: Tensor = bidirectional_lstm(x, weights)
            return exported
        result: Tensor = super().forward(x)[0]
        return result


class DualPath(nn.Module):
    """A bidirectional LSTM along the rows, then one along the frames; (b, D, F, T) to the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lstm_layers = nn.ModuleList(BidirectionalLSTM(width) for _ in range(2))
        self.linear_layers = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(2))
        self.norm_layers = nn.ModuleList(GlobalNorm(width) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        # Twice the same step: the axes F and T are exchanged before each.
        for lstm, linear, norm in zip(
            self.lstm_layers, self.linear_layers, self.norm_layers, strict=True
        ):
            batch, width, rows, frames = x.shape
            tokens = norm(x).permute(0, 3, 2, 1).reshape(batch * frames, rows, width)
            tokens = linear(lstm(tokens)).reshape(batch, frames, rows, width)
            x = x.transpose(2, 3) + tokens.permute(0, 3, 1, 2)
        return x


class Separation(nn.Module):
    """The dual-path layers; every second one works on the frames' Fourier transform."""

    def __init__(self, config: SCNetConfig) -> None:
        super().__init__()
        width = config.widths[-1]
        self.dp_modules = nn.ModuleList(
            DualPath(2 * width if i % 2 else width) for i in range(config.dual_paths)
        )

    def forward(self, x: Tensor) -> Tensor:
        cosine, sine = fourier_matrices(x.shape[-1], x)
        for i, layer in enumerate(self.dp_modules):
            x = layer(x)
            if i % 2:
                real, imaginary = x.chunk(2, dim=1)
                x = real @ (cosine * _weights(cosine)).mT + imaginary @ (sine * _weights(sine)).mT
            else:
                x = torch.cat([x @ cosine, x @ sine], dim=1)
        return x


def fourier_matrices(frames: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the real and imaginary parts of the orthonormal Fourier transform of real signals.

    Products with these matrices, (frames, frames / 2 + 1) each, are the transform in any framework.
    The inverse counts the frequencies between the first and the last twice.
    """
    time = torch.arange(frames, device=like.device)
    frequency = torch.arange(frames // 2 + 1, device=like.device)
    # The angle is reduced to a turn in integers, where it is exact.
    turn = torch.remainder(time[:, None] * frequency, frames).to(like.dtype) * (math.tau / frames)
    scale = 1 / math.sqrt(frames)
    return torch.cos(turn) * scale, torch.sin(turn) * -scale


def _weights(matrix: Tensor) -> Tensor:
    """Returns 1, 2, 2, …, 2, 1: how often the inverse counts each frequency."""
    last = matrix.shape[-1] - 1
    index = torch.arange(last + 1, device=matrix.device)
    return torch.where(torch.remainder(index, last) == 0, 1.0, 2.0).to(matrix.dtype)


class SCNet(checkpoints.StoredNetwork):
    """The network: from a waveform to stems, internally from a spectrum to spectra.

    Args:
        config: the sizes. Default: ``scnet_small``.
    """

    config: SCNetConfig

    def __init__(self, config: SCNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or SCNetConfig()
        widths, parts = config.widths, 2 * config.channels
        self.encoder = nn.ModuleList(Encoder(config, stage) for stage in range(len(widths)))
        self.separation_net = Separation(config)
        before = (len(config.stems) * parts, *widths)
        self.decoder = nn.ModuleList(
            nn.ModuleList([Fusion(widths[stage]), Upsampling(config, stage, before[stage])])
            for stage in reversed(range(len(widths)))
        )

    @classmethod
    def untrained(cls, preset: str = "scnet_small", seed: int = 0) -> SCNet:
        """Returns a preset with random weights from a seed, for tests and timing."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(SCNetConfig.preset(preset)).eval()

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        config: str | os.PathLike[str] | SCNetConfig | None = None,
    ) -> SCNet:
        """Reads a checkpoint: our ``.safetensors``, or the ``.ckpt`` of MSST or of the authors.

        Args:
            path: the file, or a name from ``bsmamba2 models``. Nothing in it is ever executed.
            config: MSST's yaml, or the sizes. Default: the sizes in the file's metadata, else
                those derived from the weights' shapes.

        Raises:
            ModelError: the file is not an SCNet checkpoint, or has other sizes; the message names
                every key that is missing, unexpected or of the wrong shape.
        """
        return checkpoints.load(cls, SCNetConfig, path, config)

    def separate_spectrum(self, mixture: Tensor) -> Tensor:
        """Separates a spectrum, in real tensors. This is exported.

        Args:
            mixture: (b, channels, frames, F, 2), an even number of frames.

        Returns:
            (b, stems, channels, frames, F, 2): the network puts out the stems' spectra, no masks.
        """
        batch, channels, frames, bins, _ = mixture.shape
        x = mixture.permute(0, 1, 4, 3, 2).reshape(batch, 2 * channels, bins, frames)
        skips: list[Tensor] = []
        for stage in self.encoder:
            x, skip = stage(x)
            skips.append(skip)
        x = self.separation_net(x)
        for modules in self.decoder:
            fusion, upsampling = cast("nn.ModuleList", modules)
            x = upsampling(fusion(x, skips.pop()))
        stems: Tensor = x.reshape(batch, len(self.config.stems), channels, 2, bins, frames)
        return stems.permute(0, 1, 2, 5, 4, 3)

    def forward(self, waveform: Tensor) -> Tensor:
        """Separates a waveform into stems.

        Args:
            waveform: (b, channels, samples) at the configuration's sample rate.

        Returns:
            (b, stems, channels, samples).
        """
        config = self.config
        mixture = spectrum.scnet_stft(waveform, config.n_fft, config.hop)
        stems = self.separate_spectrum(mixture)
        return spectrum.scnet_istft(stems, config.n_fft, config.hop, waveform.shape[-1])
