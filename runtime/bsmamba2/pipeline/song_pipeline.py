"""The complete path of a song through a model, as a stream at the song's own rate.

    mixture ─┬─ resample ─ chunks or steps ─ resample back ─ stems
             └─ delay ───────────────────────────────────── − ── residual

The residual is the mixture minus the stems, at the song's own rate. So stems and residual sum to
the mixture, and whatever resampling loses is in the residual. In a model of several stems the
instrumental is the mixture minus the vocals.
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
from bsmamba2.pipeline.residual import compute_residual, on_grid

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from concurrent.futures import Executor
    from threading import Event

    from bsmamba2.engines.protocols import Engine
    from bsmamba2.formats.manifest import Manifest
    from bsmamba2.pipeline.progress import Progress


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


class SongPipeline:
    """Streams a song through a model: push the samples, flush at the end.

    The output has as many samples as the input, and does not depend on how the input is split into
    pushes. Stems and residual sum to the mixture.

    Args:
        core: turns the mixture into stems at the model's rate; nothing has been pushed to it.
        sample_rate: rate of input and output, Hz.
        channels: channels of input and output, and of the core.
        step: distance between neighbouring sample values of an integer format (2^-15 for 16 bits).
            The stems are rounded to it before the residual is computed. 0: no rounding.

    Raises:
        AudioError: an argument is out of range.
    """

    def __init__(self, core: Core, sample_rate: float, channels: int, step: float = 0.0) -> None:
        manifest = core.manifest
        stems = len(manifest.stems)
        self._has_residual = manifest.residual is not None
        self._vocals: int | None = None
        if manifest.available != manifest.outputs:
            self._vocals = manifest.outputs.index("vocals")
        self._sample_rate = sample_rate
        self._step = step
        self._stems_shape = (stems, channels)
        self._to_model = Resampler(sample_rate, manifest.sample_rate, channels)
        self._core = core
        self._from_model = Resampler(manifest.sample_rate, sample_rate, stems * channels)
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
        return cls(core, sample_rate, channels, step)

    @property
    def latency_samples(self) -> int:
        """The most samples that can be pushed and not yet returned; this maximum is reached."""
        return latency_samples(self._to_model.delay, self._core.jumps, self._from_model.delay)

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
        audio = to_float32(mixture)
        require_finite(audio, self._sample_rate, self._received)
        self._received += mixture.shape[-1]
        self._delayed.append(mixture)
        stems = self._core.push(self._to_model.push(audio))
        return self._with_residual(self._from_model.push(self._flatten(stems)))

    def flush(self) -> Exact:
        """Ends the stream; returns (outputs, channels, m), the remaining output.

        Raises:
            ModelError, Cancelled: as :meth:`push`.
        """
        pushed = self._core.push(self._to_model.flush())
        stems = np.concatenate([pushed, self._core.flush()], axis=-1)
        back = self._from_model.push(self._flatten(stems))
        return self._with_residual(
            np.concatenate([back, self._from_model.flush(self._received)], axis=-1)
        )

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

    def _flatten(self, stems: Audio) -> Audio:
        outputs, channels, samples = stems.shape
        return stems.reshape(outputs * channels, samples)

    def _with_residual(self, flat: Audio) -> Exact:
        stems = flat.reshape(*self._stems_shape, flat.shape[-1]).astype(np.float64)
        stems = on_grid(stems, self._step)
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
