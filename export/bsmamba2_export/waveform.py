"""The network with its Fourier transforms inside, as convolutions: one graph, audio to audio.

For hosts that want one file. A frame's spectrum is a product with a windowed Fourier matrix, and
frames hop apart, so the transform is a convolution with 2·F kernels of n_fft taps; the way back is
the transposed convolution with the inverse's matrix, divided by the sum of squared windows.
The edges are those of :mod:`bsmamba2_network.spectrum`; at least n_fft/2 + 1 samples are needed.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, conv_transpose1d, pad

from bsmamba2_network import BSMamba2


class WaveformGraph(nn.Module):
    """(b, channels, samples) to (b, stems, channels, samples)."""

    def __init__(self, net: BSMamba2) -> None:
        super().__init__()
        self.net = net
        self.fourier = Fourier(net.config.n_fft, net.config.hop)

    def forward(self, waveform: Tensor) -> Tensor:
        stems = self.net.separate_spectrum(self.fourier(waveform))
        return self.fourier.inverse(stems, waveform.shape[-1])


class Fourier(nn.Module):
    """Short-time Fourier transform and its inverse by convolution; exact kernels, float32."""

    def __init__(self, n_fft: int, hop: int) -> None:
        super().__init__()
        self.n_fft, self.hop = n_fft, hop
        bins = n_fft // 2 + 1
        window = torch.hann_window(n_fft, dtype=torch.float64)
        # The phase 2π·k·n / n_fft, reduced as an integer first, so that it is exact.
        turns = (torch.arange(bins)[:, None] * torch.arange(n_fft)) % n_fft
        phase = turns.double() * (2 * math.pi / n_fft)
        analysis = torch.stack([phase.cos(), -phase.sin()], 1) * window  # (F, 2, n_fft)
        twice = torch.full((bins, 1, 1), 2.0, dtype=torch.float64)
        twice[0] = twice[-1] = 1.0  # the mirrored half of a real signal's spectrum
        self.analysis = nn.Buffer(analysis.reshape(2 * bins, 1, n_fft).float())
        self.synthesis = nn.Buffer((analysis * twice / n_fft).reshape(2 * bins, 1, n_fft).float())
        self.power = nn.Buffer(window.square().reshape(1, 1, n_fft).float())

    def forward(self, waveform: Tensor) -> Tensor:
        """(b, channels, samples) to (b, channels, frames, F, 2)."""
        batch, channels, samples = waveform.shape
        flat = waveform.reshape(batch * channels, 1, samples)
        half = self.n_fft // 2
        frames = conv1d(pad(flat, (half, half), mode="reflect"), self.analysis, stride=self.hop)
        return frames.transpose(1, 2).reshape(batch, channels, -1, half + 1, 2)

    def inverse(self, spectrum: Tensor, samples: int) -> Tensor:
        """(b, stems, channels, frames, F, 2) to (b, stems, channels, samples)."""
        batch, stems, channels, frames = spectrum.shape[:4]
        flat = spectrum.reshape(batch * stems * channels, frames, -1).transpose(1, 2)
        summed = conv_transpose1d(flat, self.synthesis, stride=self.hop)
        ones = flat.new_ones(1, 1, 1).expand(1, 1, frames)
        weight = conv_transpose1d(ones, self.power, stride=self.hop)
        half = self.n_fft // 2
        audio = summed[..., half : half + samples] / weight[..., half : half + samples]
        return audio.reshape(batch, stems, channels, samples)
