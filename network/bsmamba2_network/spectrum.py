"""The short-time Fourier transform and its inverse in PyTorch.

The runtime implements the same rules in NumPy. Signals shorter than n_fft/2 + 1 samples are padded
with zeros to that length, which reflection needs. Frames are centred on 0, hop, … up to the last
multiple of hop within the signal, and both ends are reflected. The inverse divides by the sum of
the squared windows of the frames that exist.

SCNet and HT Demucs have rules of their own, which are built on these.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import pad


def stft(waveform: Tensor, n_fft: int, hop: int, window: Tensor | None = None) -> Tensor:
    """Transforms (…, samples) to (…, frames, n_fft/2 + 1, 2).

    The default window is the periodic Hann window.
    """
    window = _hann(n_fft, waveform) if window is None else window
    waveform = pad(waveform, (0, max(0, n_fft // 2 + 1 - waveform.shape[-1])))
    flat = waveform.reshape(-1, waveform.shape[-1])
    frames = torch.stft(flat, n_fft, hop, window=window, return_complex=True)
    real = torch.view_as_real(frames.transpose(1, 2))
    return real.reshape(*waveform.shape[:-1], *real.shape[1:])


def istft(
    spectrum: Tensor, n_fft: int, hop: int, samples: int, window: Tensor | None = None
) -> Tensor:
    """Transforms (…, frames, n_fft/2 + 1, 2) to (…, samples)."""
    window = _hann(n_fft, spectrum) if window is None else window
    flat = torch.view_as_complex(spectrum.reshape(-1, *spectrum.shape[-3:]).contiguous())
    length = max(samples, n_fft // 2 + 1)
    waveform = torch.istft(flat.transpose(1, 2), n_fft, hop, window=window, length=length)
    return waveform[:, :samples].reshape(*spectrum.shape[:-3], samples)


def scnet_stft(waveform: Tensor, n_fft: int, hop: int) -> Tensor:
    """Transforms (…, samples) to an even number of frames, without a window, divided by √n_fft.

    The end is padded with at least one zero: SCNet always pads.
    """
    samples = waveform.shape[-1]
    hops = samples // hop + 1
    hops += hops % 2 == 0
    padded = pad(waveform, (0, hops * hop - samples))
    return stft(padded, n_fft, hop, waveform.new_ones(n_fft)) / math.sqrt(n_fft)


def scnet_istft(spectrum: Tensor, n_fft: int, hop: int, samples: int) -> Tensor:
    """Transforms (…, frames, n_fft/2 + 1, 2) to (…, samples), the inverse of scnet_stft."""
    window = spectrum.new_ones(n_fft)
    hops = spectrum.shape[-3] - 1
    return istft(spectrum * math.sqrt(n_fft), n_fft, hop, hops * hop, window)[..., :samples]


def htdemucs_stft(waveform: Tensor, n_fft: int, hop: int) -> Tensor:
    """Transforms (…, samples) to (…, ⌈samples / hop⌉, n_fft/2, 2), divided by √n_fft.

    Both ends are reflected. The highest bin and the outer two frames at each end are dropped.
    """
    samples = waveform.shape[-1]
    frames, edge = -(-samples // hop), hop // 2 * 3
    flat = waveform.reshape(-1, 1, samples)
    flat = pad(flat, (edge, edge + frames * hop - samples), mode="reflect")
    whole = stft(flat.reshape(*waveform.shape[:-1], -1), n_fft, hop) / math.sqrt(n_fft)
    return whole[..., 2 : 2 + frames, :-1, :]


def htdemucs_istft(spectrum: Tensor, n_fft: int, hop: int, samples: int) -> Tensor:
    """Transforms (…, frames, n_fft/2, 2) to (…, samples). What was dropped is taken as 0."""
    whole = pad(spectrum, (0, 0, 0, 1, 2, 2)) * math.sqrt(n_fft)
    edge = hop // 2 * 3
    return istft(whole, n_fft, hop, (whole.shape[-3] - 1) * hop)[..., edge : edge + samples]


def _hann(n_fft: int, like: Tensor) -> Tensor:
    return torch.hann_window(n_fft, dtype=like.dtype, device=like.device)


def without_dc(spectrum: Tensor) -> Tensor:
    """Returns a spectrum (…, F, 2) whose lowest bin is 0."""
    return torch.cat([torch.zeros_like(spectrum[..., :1, :]), spectrum[..., 1:, :]], dim=-2)
