"""Several models that separate one song together.

    ensemble    mixture ─┬─ pipeline ─ wait ─┬─ combine ─ stems
                         └─ pipeline ─ wait ─┘

    chain       mixture ─ pipeline ─┬─ one stem ─ pipeline ─ wait ─┬─ stems
                                    └─ the other stems ───── wait ─┘

Each model has a complete pipeline at the song's own rate, so the models may differ in sample rate,
chunk and hop. What one model finishes early waits for the others: the outputs stay aligned to the
sample, and memory holds no more than the longest latency.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bsmamba2.audio.array import Exact
from bsmamba2.audio.fifo import Fifo

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bsmamba2.formats.manifest import Manifest
    from bsmamba2.models.combination import Ensemble
    from bsmamba2.models.combined_stems import CombinedStems
    from bsmamba2.pipeline.song_pipeline import SongPipeline


class EnsembleSeparation:
    """Combines the stems of models that separate the same mixture.

    Args:
        ensemble: method and weights.
        manifest: describes the ensemble.
        stems: which outputs each stem is made from.
        pipelines: one per model; nothing has been pushed to them.
        channels: channels of the song.
    """

    def __init__(
        self,
        ensemble: Ensemble,
        manifest: Manifest,
        stems: CombinedStems,
        pipelines: Sequence[SongPipeline],
        channels: int,
    ) -> None:
        self.manifest = manifest
        self._method = ensemble.method
        self._weights = ensemble.weights or (1.0,) * len(pipelines)
        self._pipelines = pipelines
        self._waiting = _Waiting(stems, len(pipelines), channels)

    @property
    def latency_samples(self) -> int:
        """The most samples that can be pushed and not yet returned; this maximum is reached."""
        return max(pipeline.latency_samples for pipeline in self._pipelines)

    def push(self, mixture: npt.NDArray[Any]) -> Exact:
        """Takes (channels, n); returns (stems, channels, m), what all models have finished."""
        return self._combine([pipeline.push(mixture) for pipeline in self._pipelines])

    def flush(self) -> Exact:
        """Ends the song; returns (stems, channels, m), the remaining output."""
        return self._combine([pipeline.flush() for pipeline in self._pipelines])

    def _combine(self, outputs: Sequence[Exact]) -> Exact:
        combined = []
        for found in self._waiting.exchange(outputs):
            weights = np.array([self._weights[model] for model in found])
            combined.append(combine(np.stack(list(found.values())), self._method, weights))
        return np.stack(combined)


class ChainSeparation:
    """Separates one stem of a model with a second model.

    Args:
        manifest: describes the chain.
        stems: which outputs each stem is made from, and which one is separated.
        first, second: the pipelines of both models; nothing has been pushed to them.
        channels: channels of the song.
    """

    def __init__(
        self,
        manifest: Manifest,
        stems: CombinedStems,
        first: SongPipeline,
        second: SongPipeline,
        channels: int,
    ) -> None:
        self.manifest = manifest
        self._row = stems.chained_row
        self._first, self._second = first, second
        self._waiting = _Waiting(stems, 2, channels)

    @property
    def latency_samples(self) -> int:
        """The sum of both latencies, the most samples that can be pushed and not yet returned."""
        return self._first.latency_samples + self._second.latency_samples

    def push(self, mixture: npt.NDArray[Any]) -> Exact:
        """Takes (channels, n); returns (stems, channels, m), what both models have finished."""
        outputs = self._first.push(mixture)
        return self._select(outputs, self._second.push(outputs[self._row]))

    def flush(self) -> Exact:
        """Ends the song; returns (stems, channels, m), the remaining output."""
        outputs = self._first.flush()
        inner = [self._second.push(outputs[self._row]), self._second.flush()]
        return self._select(outputs, np.concatenate(inner, axis=-1))

    def _select(self, *outputs: Exact) -> Exact:
        return np.stack([next(iter(f.values())) for f in self._waiting.exchange(outputs)])


def combine(outputs: Exact, method: str, weights: Exact) -> Exact:
    """Combines (models, …) into (…); the weights, (models,), are those of the average."""
    if method == "average":
        # One by one: the order of a library's sum may depend on the number of samples.
        total = np.zeros(outputs.shape[1:])
        for weight, output in zip(weights, outputs, strict=True):
            total += weight * output
        average: Exact = total / weights.sum()
        return average
    if method == "median":
        median: Exact = np.median(outputs, axis=0)
        return median
    pick = {"maximum": np.argmax, "minimum": np.argmin}[method]
    positions = pick(np.abs(outputs), axis=0, keepdims=True)
    chosen: Exact = np.take_along_axis(outputs, positions, axis=0)[0]
    return chosen


class _Waiting:
    """The outputs of several models, which wait until all models have finished them."""

    def __init__(self, stems: CombinedStems, models: int, channels: int) -> None:
        used = [
            {s.row for sources in stems.sources for s in sources if s.model == number}
            for number in range(models)
        ]
        self._sources = stems.sources
        self._rows = [sorted(rows) for rows in used]
        self._channels = channels
        self._held = [Fifo(len(rows) * channels, np.float64) for rows in self._rows]

    def exchange(self, outputs: Sequence[Exact]) -> list[dict[int, Exact]]:
        """Takes each model's (outputs, channels, n), any n.

        Returns:
            For each stem the outputs that it is made from, each (channels, m), by the number of
            the model.
        """
        for rows, held, new in zip(self._rows, self._held, outputs, strict=True):
            held.append(new[rows].reshape(len(rows) * self._channels, new.shape[-1]))
        ready = min(len(held) for held in self._held)
        taken = [
            held.take(ready).reshape(len(rows), self._channels, ready)
            for rows, held in zip(self._rows, self._held, strict=True)
        ]
        return [
            {s.model: taken[s.model][self._rows[s.model].index(s.row)] for s in sources}
            for sources in self._sources
        ]
