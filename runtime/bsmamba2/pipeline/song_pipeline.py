"""The complete path of a song through a model, as a stream at the song's own rate.

    mixture ─┬─ separation ─ stems
             └─ delay ────── − ─── residual

The separation is one model (:mod:`bsmamba2.pipeline.resampled_core`) or several
(:mod:`bsmamba2.pipeline.combined_separation`). The residual is the mixture minus the stems, at the
song's own rate. So stems and residual sum to the mixture, and whatever resampling loses is in the
residual. In a model of several stems the instrumental is the mixture minus the vocals.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from bsmamba2.audio.array import Exact, require_finite, to_float32
from bsmamba2.audio.fifo import Fifo
from bsmamba2.pipeline.overlap_add import OverlapAdd
from bsmamba2.pipeline.progress import require_not_cancelled
from bsmamba2.pipeline.resampled_core import ResampledCore
from bsmamba2.pipeline.residual import compute_residual, on_grid

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from concurrent.futures import Executor
    from threading import Event

    from bsmamba2.engines.protocols import Engine
    from bsmamba2.formats.manifest import Manifest
    from bsmamba2.pipeline.progress import Progress


class Separation(Protocol):
    """Turns a mixture into stems at the song's own rate, by push and flush."""

    @property
    def manifest(self) -> Manifest: ...

    @property
    def latency_samples(self) -> int:
        """The most samples that can be pushed and not yet returned."""
        ...

    def push(self, mixture: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Takes (channels, n); returns (stems, channels, m), the output finished so far."""
        ...

    def flush(self) -> npt.NDArray[Any]:
        """Ends the song; returns (stems, channels, m), the remaining output."""
        ...


class SongPipeline:
    """Streams a song through a model: push the samples, flush at the end.

    The output has as many samples as the input, and does not depend on how the input is split into
    pushes. Stems and residual sum to the mixture.

    Args:
        separation: turns the mixture into stems; nothing has been pushed to it.
        sample_rate: rate of input and output, Hz.
        channels: channels of input and output, and of the separation.
        step: distance between neighbouring sample values of an integer format (2^-15 for 16 bits).
            The stems are rounded to it before the residual is computed. 0: no rounding.
    """

    def __init__(
        self, separation: Separation, sample_rate: float, channels: int, step: float = 0.0
    ) -> None:
        manifest = separation.manifest
        self._has_residual = manifest.residual is not None
        self._vocals: int | None = None
        if manifest.available != manifest.outputs:
            self._vocals = manifest.outputs.index("vocals")
        self._sample_rate = sample_rate
        self._step = step
        self._separation = separation
        self._delayed = Fifo(channels, np.float64)
        self._received = 0

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
        """Creates a pipeline that runs overlapping chunks through an engine.

        Args:
            engine: runs the chunks.
            sample_rate, channels, step: as for the class.
            overlap: of neighbouring chunks, a fraction of the chunk in [0, 1).
            pool, cancel: as for :class:`bsmamba2.pipeline.overlap_add.OverlapAdd`.
        """
        core = OverlapAdd(engine, overlap, channels=channels, pool=pool, cancel=cancel)
        return cls(ResampledCore(core, sample_rate, channels), sample_rate, channels, step)

    @property
    def latency_samples(self) -> int:
        """The most samples that can be pushed and not yet returned."""
        return self._separation.latency_samples

    def push(self, mixture: npt.NDArray[Any]) -> Exact:
        """Takes the next samples and returns the output that is finished.

        Args:
            mixture: (channels, n), float32 or float64.

        Returns:
            (outputs, channels, m) in float64, in the order of the manifest's ``available``.

        Raises:
            AudioError: a sample is not finite.
            ModelError: the engine's output is not finite or has a wrong shape.
            Cancelled: the caller stopped it.
        """
        require_finite(to_float32(mixture), self._sample_rate, self._received)
        self._received += mixture.shape[-1]
        self._delayed.append(mixture)
        return self._with_residual(self._separation.push(mixture))

    def flush(self) -> Exact:
        """Ends the song; returns (outputs, channels, m), the remaining output.

        Raises:
            ModelError, Cancelled: as :meth:`push`.
        """
        return self._with_residual(self._separation.flush())

    def run(
        self,
        blocks: Iterable[npt.NDArray[Any]],
        samples: int,
        progress: Progress | None = None,
        cancel: Event | None = None,
    ) -> Iterator[Exact]:
        """Pushes every block, then flushes, and yields the output.

        Args:
            blocks: (channels, n) each, the whole song.
            samples: length of the song as its header states it, for the progress.
            progress: called after every block.
            cancel: if it is set, stops before the next block.

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

    def _with_residual(self, separated: npt.NDArray[Any]) -> Exact:
        stems = on_grid(separated.astype(np.float64), self._step)
        mixture = self._delayed.take(stems.shape[-1])
        outputs = stems
        if self._has_residual:
            residual = compute_residual(mixture, stems, self._step)
            outputs = np.concatenate([outputs, residual[np.newaxis]])
        if self._vocals is not None:
            vocals = outputs[self._vocals : self._vocals + 1]
            instrumental = compute_residual(mixture, vocals, self._step)
            outputs = np.concatenate([outputs, instrumental[np.newaxis]])
        return outputs
