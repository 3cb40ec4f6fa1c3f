"""From a loaded model, single or combined, to pipelines for songs."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from threading import Event
from typing import TypeAlias

from bsmamba2.audio.schedule import Schedule
from bsmamba2.models.combination import Ensemble
from bsmamba2.models.combined_model import CombinedModel
from bsmamba2.models.loaded_model import LoadedModel
from bsmamba2.pipeline.combined_separation import ChainSeparation, EnsembleSeparation
from bsmamba2.pipeline.overlap_add import OverlapAdd
from bsmamba2.pipeline.resampled_core import Core, ResampledCore
from bsmamba2.pipeline.song_pipeline import Separation, SongPipeline
from bsmamba2.pipeline.step_stream import StepStream

StartPipeline: TypeAlias = Callable[[], SongPipeline]
"""Creates a new pipeline on every call."""

Loaded: TypeAlias = LoadedModel | CombinedModel[LoadedModel]
StartCore: TypeAlias = Callable[[], Core]


def chunk_pipelines(
    model: Loaded,
    sample_rate: float,
    channels: int,
    overlap: float | None,
    step: float = 0.0,
    pool: Executor | None = None,
    cancel: Event | None = None,
) -> StartPipeline:
    """Returns what creates pipelines that run whole chunks.

    Args:
        model: a model, an ensemble or a chain.
        overlap: of neighbouring chunks, a fraction of the chunk in [0, 1). None: each model's own.
        sample_rate, channels, step: as for :class:`~bsmamba2.pipeline.song_pipeline.SongPipeline`.
        pool, cancel: as for :class:`~bsmamba2.pipeline.overlap_add.OverlapAdd`.
    """

    def start_core(model: LoadedModel) -> StartCore:
        part = model.manifest.overlap if overlap is None else overlap
        return lambda: OverlapAdd(model.engine, part, channels, pool, cancel)

    return _starter(model, start_core, sample_rate, channels, step)


def step_pipelines(
    model: Loaded,
    sample_rate: float,
    channels: int,
    block_ms: float,
    lookahead_ms: float,
    cancel: Event | None = None,
) -> StartPipeline:
    """Returns what creates pipelines that run the steps of a stream, one at a time.

    Args:
        model: a model, an ensemble or a chain.
        sample_rate, channels: as for :class:`~bsmamba2.pipeline.song_pipeline.SongPipeline`.
        block_ms, lookahead_ms: see :class:`~bsmamba2.audio.schedule.Schedule`.
        cancel: as for :class:`~bsmamba2.pipeline.step_stream.StepStream`.

    Raises:
        AudioError: a length is out of range.
        ModelError: a model has no graph for streams.
    """

    def start_core(model: LoadedModel) -> StartCore:
        frame_ms = 1000 * model.manifest.hop / model.manifest.sample_rate
        schedule = Schedule.of_ms(block_ms, lookahead_ms, frame_ms)
        stepper = model.new_stepper()
        return lambda: StepStream(stepper, schedule, channels, cancel)

    return _starter(model, start_core, sample_rate, channels)


def _starter(
    model: Loaded,
    core_starter: Callable[[LoadedModel], StartCore],
    sample_rate: float,
    channels: int,
    step: float = 0.0,
) -> StartPipeline:
    """``core_starter`` is called once for each single model; what it returns, for each pipeline."""
    if isinstance(model, LoadedModel):
        start_core = core_starter(model)
        return lambda: SongPipeline(
            ResampledCore(start_core(), sample_rate, channels), sample_rate, channels, step
        )
    # Only the outputs of the whole combination are rounded to an integer format.
    starters = [_starter(member, core_starter, sample_rate, channels) for member in model.members]
    combination, manifest, stems = model.combination, model.manifest, model.stems

    def start() -> SongPipeline:
        members = [start_member() for start_member in starters]
        separation: Separation
        if isinstance(combination, Ensemble):
            separation = EnsembleSeparation(combination, manifest, stems, members, channels)
        else:
            separation = ChainSeparation(manifest, stems, members[0], members[1], channels)
        return SongPipeline(separation, sample_rate, channels, step)

    return start
