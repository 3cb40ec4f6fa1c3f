"""A model at its own rate, inside a song at the song's rate.

mixture ─ resample ─ chunks or steps ─ resample back ─ stems
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from bsmamba2.audio.array import Audio, to_float32
from bsmamba2.audio.latency import Jumps, latency_samples
from bsmamba2.audio.resample import Resampler

if TYPE_CHECKING:
    from bsmamba2.formats.manifest import Manifest


class Core(Protocol):
    """Turns a mixture into stems at the model's rate, by push and flush."""

    @property
    def manifest(self) -> Manifest: ...

    @property
    def jumps(self) -> Jumps:
        """When output is emitted."""
        ...

    def push(self, audio: Audio) -> Audio:
        """Takes (channels, n); returns (stems, channels, m), the output finished so far."""
        ...

    def flush(self) -> Audio:
        """Ends the stream; returns (stems, channels, m), the remaining output."""
        ...


class ResampledCore:
    """Streams a song through a core, at the song's own rate.

    Args:
        core: turns the mixture into stems at the model's rate; nothing has been pushed to it.
        sample_rate: rate of input and output, Hz.
        channels: channels of input and output, and of the core.

    Raises:
        AudioError: an argument is out of range.
    """

    def __init__(self, core: Core, sample_rate: float, channels: int) -> None:
        self.manifest = core.manifest
        rate, stems = self.manifest.sample_rate, len(self.manifest.stems)
        self._core = core
        self._shape = (stems, channels)
        self._to_model = Resampler(sample_rate, rate, channels)
        self._from_model = Resampler(rate, sample_rate, stems * channels)
        self._received = 0

    @property
    def latency_samples(self) -> int:
        """The most samples that can be pushed and not yet returned; this maximum is reached."""
        return latency_samples(self._to_model.delay, self._core.jumps, self._from_model.delay)

    def push(self, mixture: npt.NDArray[Any]) -> Audio:
        """Takes (channels, n) at the song's rate; returns (stems, channels, m).

        Raises:
            ModelError: the engine's output is not finite or has a wrong shape.
            Cancelled: the caller stopped it.
        """
        self._received += mixture.shape[-1]
        return self._back(self._core.push(self._to_model.push(to_float32(mixture))))

    def flush(self) -> Audio:
        """Ends the song; returns (stems, channels, m), the remaining output.

        Raises:
            ModelError, Cancelled: as :meth:`push`.
        """
        pushed = self._core.push(self._to_model.flush())
        back = self._back(np.concatenate([pushed, self._core.flush()], axis=-1))
        rest = self._from_model.flush(self._received)
        return np.concatenate([back, self._unflatten(rest)], axis=-1)

    def _back(self, stems: Audio) -> Audio:
        outputs, channels, samples = stems.shape
        return self._unflatten(self._from_model.push(stems.reshape(outputs * channels, samples)))

    def _unflatten(self, rows: Audio) -> Audio:
        return rows.reshape(*self._shape, rows.shape[-1])
