"""The Fourier transforms of the supported networks: one class for each published rule.

All map (channels, samples) to a spectrum (channels, frames, bins, 2) and back. They differ in
window, scale, padding and in the frames and bins that the network sees.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from bsmamba2.audio.array import Audio
from bsmamba2.audio.stft import istft, stft


@dataclass(frozen=True)
class Transform(ABC):
    """A transform and its inverse."""

    n_fft: int
    """Length of a frame, samples."""
    hop: int
    """Distance of the frames, samples."""

    @abstractmethod
    def analyse(self, audio: Audio) -> Audio:
        """Transforms (…, samples) to (…, frames, bins, 2), real and imaginary parts last."""

    @abstractmethod
    def synthesise(self, spectrum: Audio, samples: int) -> Audio:
        """Transforms (…, frames, bins, 2) back to (…, samples)."""


class Hann(Transform):
    """The transform of BSMamba2 and the RoFormers; see :mod:`bsmamba2.audio.stft`."""

    def analyse(self, audio: Audio) -> Audio:
        return stft(audio, self.n_fft, self.hop)

    def synthesise(self, spectrum: Audio, samples: int) -> Audio:
        return istft(spectrum, self.n_fft, self.hop, samples)


class Scnet(Transform):
    """SCNet's transform: no window, divided by √n_fft.

    Zeros are added at the end until the number of frames is even: at least one, because SCNet
    always pads. Source: starrytong/SCNet and Music-Source-Separation-Training, ``SCNet.forward``.
    """

    def analyse(self, audio: Audio) -> Audio:
        samples = audio.shape[-1]
        padding = self.hop - samples % self.hop
        if (samples + padding) // self.hop % 2 == 0:
            padding += self.hop
        audio = np.pad(audio, [*_unpadded(audio), (0, padding)])
        return stft(audio, self.n_fft, self.hop, self._window) * self._scale

    def synthesise(self, spectrum: Audio, samples: int) -> Audio:
        spectrum = spectrum / self._scale
        return istft(spectrum, self.n_fft, self.hop, samples, self._window)

    @property
    def _window(self) -> Audio:
        return np.ones(self.n_fft, np.float32)

    @property
    def _scale(self) -> np.float32:
        return np.float32(1 / math.sqrt(self.n_fft))


class Htdemucs(Transform):
    """HT Demucs' transform: a frame for each hop, without the highest bin, divided by √n_fft.

    Both ends are reflected by 3/2 hops, the end by what a whole number of hops lacks as well. Of
    the frames of the extended signal the first and last two are dropped, and the inverse takes
    them as zero. Source: facebookresearch/demucs, ``HTDemucs._spec`` and ``_ispec``.
    """

    def analyse(self, audio: Audio) -> Audio:
        samples = audio.shape[-1]
        frames = -(-samples // self.hop)
        edge = self._edge
        after = edge + frames * self.hop - samples
        audio = np.pad(audio, [*_unpadded(audio), (edge, after)], mode="reflect")
        spectrum = stft(audio, self.n_fft, self.hop) * self._scale
        return spectrum[..., 2 : 2 + frames, :-1, :]

    def synthesise(self, spectrum: Audio, samples: int) -> Audio:
        frames = spectrum.shape[-3]
        spectrum = np.pad(spectrum, [*[(0, 0)] * (spectrum.ndim - 3), (2, 2), (0, 1), (0, 0)])
        extended = (frames + 3) * self.hop
        audio = istft(spectrum / self._scale, self.n_fft, self.hop, extended)
        return audio[..., self._edge : self._edge + samples]

    @property
    def _edge(self) -> int:
        return self.hop // 2 * 3

    @property
    def _scale(self) -> np.float32:
        return np.float32(1 / math.sqrt(self.n_fft))


KINDS: dict[str, type[Transform]] = {"hann": Hann, "scnet": Scnet, "htdemucs": Htdemucs}
"""The transforms by the names that manifests use."""


def _unpadded(audio: Audio) -> list[tuple[int, int]]:
    return [(0, 0)] * (audio.ndim - 1)
