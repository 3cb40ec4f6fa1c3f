"""HT Demucs: a spectrum and a waveform, encoded side by side, joined by a transformer.

Source: Rouard, Massa and Défossez 2023, "Hybrid Transformers for Music Source Separation" (arXiv
2211.08553). The module tree gives the parameters the same names as in published checkpoints.

The spectrum branch works on (b, C, rows, frames), rows being frequencies; the waveform branch on
(b, C, steps). Both use the same layers, along rows or along steps.
"""

from __future__ import annotations

import os
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, glu, pad

from bsmamba2.errors import ModelError
from bsmamba2_network import checkpoints, spectrum
from bsmamba2_network.cross_transformer import CrossTransformer, Scale
from bsmamba2_network.global_norm import GlobalNorm, mean_of_example
from bsmamba2_network.htdemucs_config import STRIDE, HTDemucsConfig

KERNEL = 2 * STRIDE
_EDGE = (KERNEL - STRIDE) // 2


class DilatedBlock(nn.Sequential):
    """A convolution along time through an eighth of the channels, gated and scaled."""

    def __init__(self, channels: int, dilation: int) -> None:
        hidden = channels // 8
        super().__init__(
            nn.Conv1d(channels, hidden, 3, padding=dilation, dilation=dilation),
            GlobalNorm(hidden),
            nn.GELU(),
            nn.Conv1d(hidden, 2 * channels, 1),
            GlobalNorm(2 * channels),
            nn.GLU(dim=1),
            Scale(channels, 1e-3),
        )

    def forward(self, x: Tensor) -> Tensor:
        *layers, last = self
        y = x
        for layer in layers:
            y = layer(y)
        return x + cast("Scale", last).scale[:, None] * y


class DilatedBlocks(nn.Module):
    """Two residual blocks with dilations 1 and 2; a spectrum's rows are independent."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(DilatedBlock(channels, 2**i) for i in range(2)))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor
        if x.ndim == 3:
            out = self.layers(x)
            return out
        rows = x.transpose(1, 2)
        out = self.layers(rows.flatten(0, 1))
        out = out.unflatten(0, rows.shape[:2]).transpose(1, 2)
        return out


class Encoder(nn.Module):
    """Joins each four rows or steps to one: (b, C, n, …) to (b, C', ⌈n / 4⌉, …)."""

    def __init__(self, before: int, channels: int, *, plane: bool) -> None:
        super().__init__()
        if plane:
            self.conv: nn.Module = nn.Conv2d(
                before, channels, (KERNEL, 1), (STRIDE, 1), padding=(_EDGE, 0)
            )
            self.rewrite: nn.Module = nn.Conv2d(channels, 2 * channels, 1)
        else:
            self.conv = nn.Conv1d(before, channels, KERNEL, STRIDE, padding=_EDGE)
            self.rewrite = nn.Conv1d(channels, 2 * channels, 1)
        self.dconv = DilatedBlocks(channels)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 3:
            x = pad(x, (0, -x.shape[-1] % STRIDE))
        return glu(self.rewrite(self.dconv(gelu(self.conv(x)))), dim=1)


class Decoder(nn.Module):
    """Adds the encoder's output and makes four rows or steps of one."""

    def __init__(self, channels: int, after: int, *, plane: bool, last: bool) -> None:
        super().__init__()
        self.last = last
        if plane:
            self.conv_tr: nn.Module = nn.ConvTranspose2d(channels, after, (KERNEL, 1), (STRIDE, 1))
            self.rewrite: nn.Module = nn.Conv2d(channels, 2 * channels, 3, padding=1)
        else:
            self.conv_tr = nn.ConvTranspose1d(channels, after, KERNEL, STRIDE)
            self.rewrite = nn.Conv1d(channels, 2 * channels, 3, padding=1)
        self.dconv = DilatedBlocks(channels)

    def forward(self, x: Tensor, skip: Tensor, length: int) -> Tensor:
        """Maps (b, C, n, …) to (b, C', length, …)."""
        x = self.conv_tr(self.dconv(glu(self.rewrite(x + skip), dim=1)))
        x = x[:, :, _EDGE : _EDGE + length]
        return x if self.last else gelu(x)


class FrequencyEmbedding(nn.Module):
    """Features of each row after the first encoder, (rows, C)."""

    def __init__(self, rows: int, channels: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(rows, channels)

    def forward(self) -> Tensor:
        # A weight of 0.2 on features that are stored divided by 10.
        return self.embedding.weight * (0.2 * 10)


class HTDemucs(checkpoints.StoredNetwork):
    """The network: from a waveform to stems, internally also from a spectrum to spectra.

    Args:
        config: the sizes. Default: ``htdemucs``.
    """

    config: HTDemucsConfig

    def __init__(self, config: HTDemucsConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or HTDemucsConfig()
        widths, stems = config.widths, len(config.stems)
        self.freq_emb = FrequencyEmbedding(config.bins // STRIDE, widths[0])
        self.encoder, self.decoder = _branch(2 * config.channels, widths, stems, plane=True)
        self.tencoder, self.tdecoder = _branch(config.channels, widths, stems, plane=False)
        if config.bottom:
            for suffix in "", "_t":
                up, down = (widths[-1], config.bottom), (config.bottom, widths[-1])
                setattr(self, f"channel_upsampler{suffix}", nn.Conv1d(*up, 1))
                setattr(self, f"channel_downsampler{suffix}", nn.Conv1d(*down, 1))
        self.crosstransformer = CrossTransformer(
            config.transformer_width, config.layers, config.heads
        )

    @classmethod
    def untrained(cls, preset: str = "htdemucs", seed: int = 0) -> HTDemucs:
        """Returns a preset with random weights from a seed, for tests and timing."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(HTDemucsConfig.preset(preset)).eval()

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        config: str | os.PathLike[str] | HTDemucsConfig | None = None,
    ) -> HTDemucs:
        """Reads a checkpoint: our ``.safetensors``, or a file of Demucs or MSST.

        Args:
            path: the file, or a name from ``bsmamba2 models``. Nothing in it is ever executed.
            config: MSST's yaml, or the sizes. Default: the sizes in the file's metadata, else
                those derived from the weights' shapes.

        Raises:
            ModelError: the file is not an HT Demucs checkpoint, or has other sizes; the message
                names every key that is missing, unexpected or of the wrong shape.
        """
        return checkpoints.load(cls, HTDemucsConfig, path, config)

    def separate_both(self, mixture: Tensor, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """Separates a mixture, given in both forms, in real tensors. This is exported.

        Args:
            mixture: the spectrum, (b, channels, frames, bins, 2).
            waveform: (b, channels, samples).

        Returns:
            Spectra (b, stems, channels, frames, bins, 2) and waveforms (b, stems, channels,
            samples) of the stems. A stem is the sum of its waveform and its spectrum's.
        """
        batch, channels, frames, bins, _ = mixture.shape
        stems = len(self.config.stems)
        x = mixture.permute(0, 1, 4, 3, 2).reshape(batch, 2 * channels, bins, frames)
        x, mean, deviation = _standardise(x)
        t, mean_t, deviation_t = _standardise(waveform)

        skips: list[tuple[Tensor, Tensor]] = []
        lengths: list[tuple[int, int]] = []
        for i, (encoder, tencoder) in enumerate(zip(self.encoder, self.tencoder, strict=True)):
            lengths.append((x.shape[2], t.shape[2]))
            x, t = encoder(x), tencoder(t)
            if i == 0:
                x = x + self.freq_emb().mT[:, :, None]
            skips.append((x, t))
        x, t = self._transform(x, t)
        for decoder, tdecoder in zip(self.decoder, self.tdecoder, strict=True):
            (skip, skip_t), (rows, steps) = skips.pop(), lengths.pop()
            x, t = decoder(x, skip, rows), tdecoder(t, skip_t, steps)

        x = x * deviation + mean
        x = x.reshape(batch, stems, channels, 2, bins, frames).permute(0, 1, 2, 5, 4, 3)
        t = t * deviation_t + mean_t
        return x, t.reshape(batch, stems, channels, -1)

    def _transform(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Runs the transformer, at its own width if that is another than the encoders'."""
        if not self.config.bottom:
            return cast("tuple[Tensor, Tensor]", self.crosstransformer(x, t))
        rows_frames = x.shape[2:]
        up, up_t = cast("Any", self.channel_upsampler), cast("Any", self.channel_upsampler_t)
        down, down_t = (
            cast("Any", self.channel_downsampler),
            cast("Any", self.channel_downsampler_t),
        )
        x = up(x.flatten(2)).unflatten(2, rows_frames)
        x, t = self.crosstransformer(x, up_t(t))
        return down(x.flatten(2)).unflatten(2, rows_frames), down_t(t)

    def forward(self, waveform: Tensor) -> Tensor:
        """Separates a waveform into stems.

        Args:
            waveform: (b, channels, samples) at the configuration's sample rate. Fewer samples than
                ``chunk`` are padded with zeros: the network is trained on whole chunks.

        Returns:
            (b, stems, channels, samples).

        Raises:
            ModelError: there are more samples than ``chunk``.
        """
        config, samples = self.config, waveform.shape[-1]
        if samples > config.chunk:
            raise ModelError(
                f"waveform must have at most {config.chunk} samples, the length that the network "
                f"is trained on; got {samples}: separate it in chunks"
            )
        padded = pad(waveform, (0, config.chunk - samples))
        mixture = spectrum.htdemucs_stft(padded, config.n_fft, config.hop)
        spectra, waveforms = self.separate_both(mixture, padded)
        back = spectrum.htdemucs_istft(spectra, config.n_fft, config.hop, config.chunk)
        return (back + waveforms)[..., :samples]


def _branch(
    parts: int, widths: tuple[int, ...], stems: int, *, plane: bool
) -> tuple[nn.ModuleList, nn.ModuleList]:
    """Returns the encoders of one branch, and its decoders from the deepest to the last."""
    before, after = (parts, *widths), (parts * stems, *widths)
    stages = range(len(widths))
    encoders = [Encoder(before[i], widths[i], plane=plane) for i in stages]
    decoders = [Decoder(widths[i], after[i], plane=plane, last=i == 0) for i in reversed(stages)]
    return nn.ModuleList(encoders), nn.ModuleList(decoders)


def _standardise(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns (x − mean) / (deviation + 1e-5), the mean and the deviation of each example."""
    mean = mean_of_example(x)
    count = x[0].numel()  # the deviation is that of a sample, as in torch.std
    deviation = torch.sqrt(mean_of_example((x - mean).square()) * (count / (count - 1)))
    return (x - mean) / (deviation + 1e-5), mean, deviation
