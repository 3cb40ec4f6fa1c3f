"""The stems of an ensemble or a chain, and the outputs of its models that each is made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from bsmamba2.errors import ModelError
from bsmamba2.formats.manifest import residual_of
from bsmamba2.formats.stem_names import find_stem

if TYPE_CHECKING:
    from bsmamba2.formats.manifest import Manifest
    from bsmamba2.models.combination import Chain, Ensemble

_RESTS = ("other", "residual")
"""Stems that mean what is left over, which depends on the other stems of their model."""


class Source(NamedTuple):
    """One output of one model."""

    model: int
    """Number of the model."""
    row: int
    """Number of the output among the model's ``available``."""


@dataclass(frozen=True)
class CombinedStems:
    """The stems of a combination."""

    stems: tuple[str, ...]
    residual: str | None
    """The name of the mixture minus the stems."""
    sources: tuple[tuple[Source, ...], ...]
    """The outputs that each stem is made from."""
    chained_row: int | None = None
    """In a chain, the row of the first model's output that the second model separates."""


def ensemble_stems(ensemble: Ensemble, manifests: Sequence[Manifest]) -> CombinedStems:
    """Returns the stems that all models have, or those that each model is to be used for.

    Raises:
        ModelError: the models have no stem in common, or one lacks a stem that it is to be used
            for.
    """
    first, listed = manifests[0], ensemble.stems
    if listed is None:
        shared = _shared(manifests)
        used = [set(shared)] * len(manifests)
    else:
        pairs = zip(manifests, listed, strict=True)
        used = [{find_stem(stem, model.available) for stem in stems} for model, stems in pairs]
        known = [
            stem
            for model, stems in zip(manifests, used, strict=True)
            for stem in model.available
            if stem in stems
        ]
        shared = tuple(dict.fromkeys(known))
    sources = tuple(
        tuple(
            Source(number, model.available.index(stem))
            for number, (model, stems) in enumerate(zip(manifests, used, strict=True))
            if stem in stems
        )
        for stem in shared
    )
    same = shared == first.stems and first.residual
    return CombinedStems(shared, first.residual if same else residual_of(shared), sources)


def chain_stems(chain: Chain, first: Manifest, second: Manifest) -> CombinedStems:
    """Returns the outputs of the second model, and what the first left, one of which is last.

    The last one is the mixture minus the others: the residual of the first model or, if that is
    what the second one separates, the residual of the second. The residual of the second model gets
    the name of the chained stem in front, and so does an output that is called like one that the
    first left.

    Raises:
        UnknownStem: the first model has no such stem.
    """
    stem = find_stem(chain.stem, first.available)
    # The instrumental of several stems consists of all outputs but the vocals.
    parts = (stem,) if stem in first.outputs else set(first.outputs) - {"vocals"}
    left = {name: Source(0, row) for row, name in enumerate(first.outputs) if name not in parts}
    inner: dict[str, Source] = {}
    for row, name in enumerate(second.outputs):
        unique = f"{stem}_{name}" if name == second.residual else name
        while unique in left or unique in inner:
            unique = f"{stem}_{unique}"
        inner[unique] = Source(1, row)
    outputs = left | inner if first.residual in parts else inner | left
    names, sources = tuple(outputs), tuple((source,) for source in outputs.values())
    row = first.available.index(stem)
    if len(names) == 1:
        return CombinedStems(names, None, sources, row)
    return CombinedStems(names[:-1], names[-1], sources[:-1], row)


def _shared(manifests: Sequence[Manifest]) -> tuple[str, ...]:
    """Returns the names that all models have, in the order of the first."""
    first = manifests[0]
    if all(set(model.outputs) == set(first.outputs) for model in manifests):
        return first.stems
    known = [set(model.available) for model in manifests]
    shared = [name for name in first.available if all(name in names for names in known)]
    # One model's `other` is everything but its own stems, and means something else in another.
    shared = [name for name in shared if name not in _RESTS]
    if "vocals" in shared and "instrumental" in shared:
        shared.remove("instrumental")  # it follows from the vocals
    if not shared:
        listed = "; ".join(f"{model.name}: {', '.join(model.outputs)}" for model in manifests)
        raise ModelError(
            f"the models of an ensemble must have a stem in common; got {listed}: choose models "
            "with the same stems, or state the stems that each is used for"
        )
    return tuple(shared)
