"""The whole way of a song through a model, as a stream at the song's own rate.

    mixture ─┬─ resample ─ chunks or steps ─ resample back ─ stems
             └─ wait ────────────────────────────────────── − ── residual

The residual is the mixture less the stems at the song's own rate, so all outputs sum to the
mixture, and what resampling loses is in the residual.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from bsmamba2.audio.array import Audio, Exact, require_finite, to_float32
from bsmamba2.audio.fifo import Fifo
from bsmamba2.audio.latency import Jumps, latency_samples
from bsmamba2.audio.resample import Resampler
from bsmamba2.pipeline.overlap_add import OverlapAdd
from bsmamba2.pipeline.progress import require_not_cancelled

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from concurrent.futures import Executor
    from threading import Event

    from bsmamba2.formats.manifest import Manifest
    from bsmamba2.formats.protocols import Engine
    from bsmamba2.pipeline.progress import Progress


class Core(Protocol):
    """What turns a mixture into stems at the model's rate: a push and flush of its own."""

    @property
    def manifest(self) -> Manifest: ...

    @property
    def jumps(self) -> Jumps:
        """When its output comes."""
        ...

    def push(self, audio: Audio) -> Audio:
        """Takes (channels, n); returns (stems, channels, m), the output that is certain by now."""
        ...

    def flush(self) -> Audio:
        """Ends the stream; returns (stems, channels, m), the rest of the output."""
        ...


def on_grid(samples: Exact, step: float) -> Exact:
    """The samples rounded to multiples of step, a power of two; untouched where step is 0."""
    return np.round(samples / step) * step if step else samples


def subtract(mixture: Exact, stems: Exact, step: float) -> Exact:
    """The residual (channels, n) of a mixture (channels, n) and stems (stems, channels, n).

    With stems on a grid of step the mixture is put on it too, and since float64 holds the
    difference of two integers of 32 bits, the sum is exact to the bit.
    """
    residual: Exact = on_grid(mixture, step) - stems.sum(axis=0)
    return residual


class SongPipeline:
    """A stream of a song through a model: push what there is, flush at the end.

    As many samples come out as went in. The output does not depend on how the input is cut into
    pushes. Stems and residual sum to the mixture.

    Args:
        core: what turns the mixture into stems at the model's rate; fresh.
        sample_rate: of input and output, Hz.
        channels: of input and output, as the core's.
        step: the distance of neighbouring sample values in an integer format (2^-15 for 16 bits).
            The stems are rounded to it before the residual is taken. 0: no rounding.

    Raises:
        AudioError: an argument is out of range.
    """

    def __init__(self, core: Core, sample_rate: float, channels: int, step: float = 0.0) -> None:
        manifest = core.manifest
        stems = len(manifest.stems)
        self._has_residual = manifest.residual is not None
        self._sample_rate = sample_rate
        self._step = step
        self._stems_shape = (stems, channels)
        self._to_model = Resampler(sample_rate, manifest.sample_rate, channels)
        self._core = core
        self._from_model = Resampler(manifest.sample_rate, sample_rate, stems * channels)
        self._waiting = Fifo(channels, np.float64)
        self._came = 0

    @classmethod
    def by_chunks(
        cls,
        engine: Engine,
        sample_rate: float,
        channels: int,
        overlap: float,
        step: float = 0.0,
        pool: Executor | None = None,
        cancel: Event | None = None,
    ) -> SongPipeline:
        """Through an engine, by overlapping chunks.

        Args:
            overlap: of neighbouring chunks, a fraction of the chunk in [0, 1).
            pool, cancel: see :class:`bsmamba2.pipeline.overlap_add.OverlapAdd`.
        """
        core = OverlapAdd(engine, overlap, channels=channels, pool=pool, cancel=cancel)
        return cls(core, sample_rate, channels, step)

    @property
    def latency_samples(self) -> int:
        """The most that can have come and not gone out: as many samples later than they came, all
        are there. The smallest such number."""
        return latency_samples(self._to_model.delay, self._core.jumps, self._from_model.delay)

    def push(self, mixture: npt.NDArray[Any]) -> Exact:
        """Takes the next samples, returns what is certain by now.

        Args:
            mixture: (channels, n), float32 or float64.

        Returns:
            (outputs, channels, m) in float64: the manifest's ``outputs`` in its order.

        Raises:
            AudioError: a sample is not finite.
            ModelError: the engine's output is not finite or of a wrong shape.
            Cancelled: the caller asked to stop.
        """
        audio = to_float32(mixture)
        require_finite(audio, self._sample_rate, self._came)
        self._came += mixture.shape[-1]
        self._waiting.append(mixture)
        stems = self._core.push(self._to_model.push(audio))
        return self._finish(self._from_model.push(self._flat(stems)))

    def flush(self) -> Exact:
        """Ends the stream; returns (outputs, channels, m), the rest of the output.

        Raises:
            ModelError, Cancelled: as :meth:`push`.
        """
        pushed = self._core.push(self._to_model.flush())
        stems = np.concatenate([pushed, self._core.flush()], axis=-1)
        back = self._from_model.push(self._flat(stems))
        return self._finish(np.concatenate([back, self._from_model.flush(self._came)], axis=-1))

    def run(
        self,
        blocks: Iterable[npt.NDArray[Any]],
        samples: int,
        progress: Progress | None = None,
        cancel: Event | None = None,
    ) -> Iterator[Exact]:
        """Pushes every block, then flushes, and yields what comes out.

        Args:
            blocks: (channels, n) each, the whole song.
            samples: length of the song as its header states it, for the progress.
            progress: called after every block.
            cancel: stops between blocks where it is set.

        Raises:
            AudioError, ModelError, Cancelled: as :meth:`push`.
        """
        done = 0
        for block in blocks:
            require_not_cancelled(cancel)
            outputs = self.push(block)
            done += outputs.shape[-1]
            yield outputs
            if progress:
                progress(done / self._sample_rate, max(done, samples) / self._sample_rate)
        require_not_cancelled(cancel)
        outputs = self.flush()
        done += outputs.shape[-1]
        yield outputs
        if progress:
            progress(done / self._sample_rate, done / self._sample_rate)

    def _flat(self, stems: Audio) -> Audio:
        outputs, channels, samples = stems.shape
        return stems.reshape(outputs * channels, samples)

    def _finish(self, flat: Audio) -> Exact:
        stems = flat.reshape(*self._stems_shape, flat.shape[-1]).astype(np.float64)
        stems = on_grid(stems, self._step)
        mixture = self._waiting.take(stems.shape[-1])
        if not self._has_residual:
            return stems
        return np.concatenate([stems, subtract(mixture, stems, self._step)[np.newaxis]])
