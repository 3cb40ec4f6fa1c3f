"""The network with its Fourier transforms as matrix products: one graph, audio to audio.

For GPUs, and for hosts that need a single file. A frame's spectrum is the product of the frame with
a windowed Fourier matrix. The inverse is a product with the inverse's matrix, an overlap-add of the
frames, and a division by the sum of the squared windows. :mod:`bsmamba2.audio.fourier` defines the
matrices, and how hops form frames; edges are treated as in :mod:`bsmamba2_network.spectrum`. The
audio needs at least n_fft/2 + 1 samples.

    padded audio, cut at hops     │ 0 │ 1 │ 2 │ 3 │ 4 │ …
    frame 0 = hops 0 to B − 1     ├───────────┤
    frame 1 = hops 1 to B             ├───────────┤         B = ⌈n_fft / hop⌉
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from bsmamba2.audio import fourier
from bsmamba2_network import BSMamba2, compact
from bsmamba2_network.families import Network
from bsmamba2_network.spectrum import without_dc


class WaveformGraph(nn.Module):
    """The traced module: (b, channels, samples) to (b, stems, channels, samples).

    Args:
        net: the network.
        few_operations: whether a BSMamba2 has the form of :mod:`bsmamba2_network.compact`.
    """

    def __init__(self, net: Network, few_operations: bool = False) -> None:
        super().__init__()
        self.net = net
        self.few_operations = few_operations
        self.fourier = Fourier(net.config.n_fft, net.config.hop)

    def forward(self, waveform: Tensor) -> Tensor:
        spectrum = self.fourier(waveform)
        if self.few_operations and isinstance(self.net, BSMamba2):
            stems = compact.separate_spectrum(self.net, spectrum)
        else:
            stems = self.net.separate_spectrum(spectrum, grouped=True)
        if self.net.config.zero_dc:
            stems = without_dc(stems)
        return self.fourier.inverse(stems, waveform.shape[-1])


class Fourier(nn.Module):
    """The short-time Fourier transform and its inverse by exact float32 matrices."""

    def __init__(self, n_fft: int, hop: int) -> None:
        super().__init__()
        self.n_fft, self.hop = n_fft, hop
        matrices = fourier.matrices(n_fft, hop)
        self.analysis = nn.Buffer(torch.from_numpy(matrices[fourier.ANALYSIS]))
        self.synthesis = nn.Buffer(torch.from_numpy(matrices[fourier.SYNTHESIS]))
        self.power = nn.Buffer(torch.from_numpy(fourier.power(n_fft, hop)))

    def forward(self, waveform: Tensor) -> Tensor:
        """Transforms (b, channels, samples) to (b, channels, frames, F, 2)."""
        batch, channels, samples = waveform.shape
        half, blocks, frames = self.n_fft // 2, len(self.power), samples // self.hop + 1
        flat = waveform.reshape(batch * channels, 1, samples)
        padded = pad(pad(flat, (half, half), mode="reflect"), (0, blocks * self.hop - self.n_fft))
        hops = padded[:, 0, : (frames + blocks - 1) * self.hop]
        hops = hops.reshape(batch * channels, frames + blocks - 1, self.hop)
        framed = torch.cat([hops[:, j : frames + j] for j in range(blocks)], dim=-1)
        return (framed @ self.analysis).reshape(batch, channels, frames, half + 1, 2)

    def inverse(self, spectrum: Tensor, samples: int) -> Tensor:
        """Transforms (b, stems, channels, frames, F, 2) to (b, stems, channels, samples)."""
        batch, stems, channels, frames = spectrum.shape[:4]
        framed = spectrum.reshape(batch * stems * channels, frames, -1) @ self.synthesis
        half = self.n_fft // 2
        ones = framed.new_ones(1, 1, 1).expand(1, frames, 1)
        weight = self._overlap_add(ones * self.power.reshape(1, 1, -1))
        audio = (
            self._overlap_add(framed)[:, half : half + samples] / weight[:, half : half + samples]
        )
        return audio.reshape(batch, stems, channels, samples)

    def _overlap_add(self, framed: Tensor) -> Tensor:
        """Adds overlapping frames: (n, frames, B · hop) to (n, (frames + B − 1) · hop)."""
        blocks = len(self.power)
        parts = framed.reshape(framed.shape[0], framed.shape[1], blocks, self.hop)
        hops = sum(pad(parts[:, :, j], (0, 0, j, blocks - 1 - j)) for j in range(blocks))
        assert isinstance(hops, Tensor)
        return hops.reshape(framed.shape[0], -1)
