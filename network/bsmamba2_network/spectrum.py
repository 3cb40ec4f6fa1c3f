"""The short-time Fourier transform and its inverse in PyTorch.

The runtime implements the same rules in NumPy. Signals shorter than n_fft/2 + 1 samples are padded
with zeros to that length, which reflection needs. Frames are centred on 0, hop, … up to the last
multiple of hop within the signal, and both ends are reflected. The inverse divides by the sum of
the squared windows of the frames that exist.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad


def stft(waveform: Tensor, n_fft: int, hop: int) -> Tensor:
    """Transforms (…, samples) to (…, frames, n_fft/2 + 1, 2), with a periodic Hann window."""
    waveform = pad(waveform, (0, max(0, n_fft // 2 + 1 - waveform.shape[-1])))
    flat = waveform.reshape(-1, waveform.shape[-1])
    frames = torch.stft(flat, n_fft, hop, window=_window(n_fft, waveform), return_complex=True)
    real = torch.view_as_real(frames.transpose(1, 2))
    return real.reshape(*waveform.shape[:-1], *real.shape[1:])


def istft(spectrum: Tensor, n_fft: int, hop: int, samples: int) -> Tensor:
    """Transforms (…, frames, n_fft/2 + 1, 2) to (…, samples)."""
    flat = torch.view_as_complex(spectrum.reshape(-1, *spectrum.shape[-3:]).contiguous())
    length = max(samples, n_fft // 2 + 1)
    window = _window(n_fft, spectrum)
    waveform = torch.istft(flat.transpose(1, 2), n_fft, hop, window=window, length=length)
    return waveform[:, :samples].reshape(*spectrum.shape[:-3], samples)


def _window(n_fft: int, like: Tensor) -> Tensor:
    return torch.hann_window(n_fft, dtype=like.dtype, device=like.device)


def without_dc(spectrum: Tensor) -> Tensor:
    """Returns a spectrum (…, F, 2) whose lowest bin is 0."""
    return torch.cat([torch.zeros_like(spectrum[..., :1, :]), spectrum[..., 1:, :]], dim=-2)
