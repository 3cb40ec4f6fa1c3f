"""From a loaded model, single or combined, to pipelines for songs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from bsmamba2.models.combination import Ensemble
from bsmamba2.models.combined_model import CombinedModel
from bsmamba2.models.loaded_model import LoadedModel
from bsmamba2.pipeline.combined_separation import ChainSeparation, EnsembleSeparation
from bsmamba2.pipeline.resampled_core import Core, ResampledCore
from bsmamba2.pipeline.song_pipeline import SongPipeline

StartCore: TypeAlias = Callable[[], Core]
StartPipeline: TypeAlias = Callable[[], SongPipeline]


def pipeline_starter(
    model: LoadedModel | CombinedModel[LoadedModel],
    core_starter: Callable[[LoadedModel], StartCore],
    sample_rate: float,
    channels: int,
    step: float = 0.0,
) -> StartPipeline:
    """Returns a function that creates a new pipeline on every call.

    Args:
        model: a model, an ensemble or a chain.
        core_starter: called once for each single model; returns a function that creates its core.
        sample_rate, channels, step: as for :class:`~bsmamba2.pipeline.song_pipeline.SongPipeline`.
    """
    if isinstance(model, LoadedModel):
        start_core = core_starter(model)
        return lambda: SongPipeline(
            ResampledCore(start_core(), sample_rate, channels), sample_rate, channels, step
        )
    # Only the outputs of the whole combination are rounded to an integer format.
    starters = [
        pipeline_starter(member, core_starter, sample_rate, channels) for member in model.members
    ]
    combination, manifest, stems = model.combination, model.manifest, model.stems

    def start() -> SongPipeline:
        members = [start_member() for start_member in starters]
        separation = (
            EnsembleSeparation(combination, manifest, stems, members, channels)
            if isinstance(combination, Ensemble)
            else ChainSeparation(manifest, stems, *members, channels)
        )
        return SongPipeline(separation, sample_rate, channels, step)

    return start
