"""The L1 of the complex spectra of several windows, which computes its gradient alongside.

PyTorch's own gradient of a short-time transform takes complex transforms of full length and adds
frames sample by sample. The gradient of a modulus |z| is z / |z|, so here it is one inverse real
transform per frame, taken while the frame is still in the caches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

EPSILON = 1e-14
"""Added to |z|², so that exactly reproduced silence has a finite gradient."""
SIGNALS_TOGETHER = 2
"""Signals that a CPU transforms at a time, so that their spectra stay in its caches."""


def spectral_l1(signals: Tensor, windows: Sequence[int], smallest_fft: int, hop: int) -> Tensor:
    """Returns the sum over windows of the mean modulus of the short-time spectra.

    The spectra are those of ``torch.stft(signals, max(size, smallest_fft), hop, size, hann)``, and
    √(|z|² + 1e-14) is their modulus. Can be differentiated once.

    Args:
        signals: (n, samples), real; more samples than half of the longest transform.
        windows: sizes of the periodic Hann windows, even.
        smallest_fft: smallest length of a transform, even.
        hop: samples between frames.
    """
    return _SpectralL1.apply(signals, tuple(windows), smallest_fft, hop)


class _SpectralL1(torch.autograd.Function):
    apply: ClassVar[Callable[..., Tensor]]  # PyTorch has no annotations for it

    @staticmethod
    def forward(
        ctx: Any, signals: Tensor, windows: tuple[int, ...], smallest_fft: int, hop: int
    ) -> Tensor:
        edge = max(*windows, smallest_fft) // 2
        padded = pad(signals[None], (edge, edge), mode="reflect")[0]
        gradient = torch.zeros_like(padded) if ctx.needs_input_grad[0] else None
        frames = signals.shape[-1] // hop + 1
        together = SIGNALS_TOGETHER if signals.device.type == "cpu" else max(1, len(signals))
        total = signals.new_zeros(())
        for size in windows:
            n_fft, first = max(size, smallest_fft), edge - size // 2
            window = torch.hann_window(size, dtype=signals.dtype, device=signals.device)
            scale = 1 / (len(signals) * frames * (n_fft // 2 + 1))
            for i in range(0, len(signals), together):
                samples = padded[i : i + together, first:]
                # The transform starts where the window does, which shifts phases, not moduli.
                windowed = samples.unfold(-1, size, hop)[:, :frames] * window
                spectra = torch.fft.rfft(windowed, n_fft)
                total = total + scale * _to_slopes(spectra)
                if gradient is not None:
                    slopes = torch.fft.irfft(spectra, n_fft, norm="forward")[..., :size]
                    _overlap_add(
                        slopes * (scale / 2 * window), hop, gradient[i : i + together, first:]
                    )
        ctx.save_for_backward(None if gradient is None else _fold_edges(gradient, edge))
        return total

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * slope, None, None, None


def _to_slopes(spectra: Tensor) -> Tensor:
    """Divides spectra (…, bins) by their moduli, in place, and returns the sum of the moduli.

    The first and last bins are doubled as well: an inverse transform of real signals counts the
    others twice, and the loss counts every bin once.
    """
    parts = torch.view_as_real(spectra)
    re, im = parts.unbind(-1)
    power = (re * re).addcmul_(im, im).add_(EPSILON)
    inverse = power.rsqrt()
    parts *= inverse[..., None]
    parts[..., 0, :] *= 2
    parts[..., -1, :] *= 2
    return (power * inverse).sum()


def _overlap_add(frames: Tensor, hop: int, to: Tensor) -> None:
    """Adds frames (n, count, size), ``hop`` samples apart, to ``to`` (n, samples)."""
    count, size = frames.shape[1:]
    # Every apart-th frame overlaps none of the others.
    apart = -(-size // hop)
    for first in range(min(apart, count)):
        part = frames[:, first::apart]
        to[:, first * hop :].unfold(-1, size, apart * hop)[:, : part.shape[1]] += part


def _fold_edges(padded: Tensor, edge: int) -> Tensor:
    """Returns the gradient of signals, (n, samples), from that of their reflected form."""
    inner = padded[:, edge:-edge].clone()
    inner[:, 1 : edge + 1] += padded[:, :edge].flip(-1)
    inner[:, -edge - 1 : -1] += padded[:, -edge:].flip(-1)
    return inner
