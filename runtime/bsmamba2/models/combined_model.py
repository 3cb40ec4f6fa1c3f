"""Several models as one: an ensemble or a chain whose models are opened or loaded."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from bsmamba2.errors import ModelError
from bsmamba2.formats.manifest import MAX_CHUNK, Manifest
from bsmamba2.models import registry
from bsmamba2.models.combination import (
    MAX_MODELS,
    Chain,
    Ensemble,
    ModelSource,
    read_combination,
    require_depth,
)
from bsmamba2.models.combined_stems import CombinedStems, chain_stems, ensemble_stems
from bsmamba2.models.demucs_bag import bag_ensemble, read_bag
from bsmamba2.models.model_file import BAG_SUFFIXES, COMBINATION_SUFFIX


class HasManifest(Protocol):
    """A model that is opened or loaded."""

    @property
    def manifest(self) -> Manifest: ...


M = TypeVar("M", bound=HasManifest)


@dataclass(frozen=True)
class CombinedManifest(Manifest):
    """The description of a combination: its stems, and the manifests of its models.

    The sample rate is that of the first model; the chunk is the longest one, at that rate. Each
    model runs at its own rate in chunks of its own length.
    """

    members: tuple[Manifest, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    """How the models are combined."""

    @property
    def fingerprint(self) -> str:
        parts = {**self.settings, "members": [member.fingerprint for member in self.members]}
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def to_json(self) -> str:
        """Returns JSON text with the manifest of each model."""
        about = {"name": self.name, "stems": self.stems, "residual": self.residual}
        members = [json.loads(member.to_json()) for member in self.members]
        return json.dumps({**about, **self.settings, "members": members}, separators=(",", ":"))


@dataclass(frozen=True)
class CombinedModel(Generic[M]):
    """An ensemble or a chain of models that are opened or loaded."""

    combination: Ensemble | Chain
    members: tuple[M | CombinedModel[M], ...]
    stems: CombinedStems
    manifest: CombinedManifest


def combine(
    source: ModelSource | None,
    open_one: Callable[[Any], M],
    config: str | os.PathLike[str] | None = None,
) -> M | CombinedModel[M]:
    """Opens a model and, if it is a combination, each of its models.

    Args:
        source: what stands for the model.
        open_one: opens a single model: a name, a path, an engine, or None for the shipped one.
        config: the yaml of a checkpoint, which a combination cannot have.

    Raises:
        ModelError: a file is not a combination, there are too many models, or their stems do not
            fit.
    """
    count = 0

    def open_any(source: ModelSource | None, depth: int) -> M | CombinedModel[M]:
        nonlocal count
        if isinstance(source, (str, os.PathLike)) and Path(source).suffix in BAG_SUFFIXES:
            require_no_config()
            bag, files = read_bag(Path(source))
            members = open_all(files, depth)
            stems = members[0].manifest.stems
            return _combined(bag_ensemble(bag, Path(source), files, stems), members)
        combination = _find_combination(source)
        if combination is None:
            count += 1
            if count > MAX_MODELS:
                raise ModelError(f"a combination must have up to {MAX_MODELS} models; got more")
            return open_one(source)
        require_no_config()
        return _combined(combination, open_all(combination.models, depth))

    def open_all(models: Iterable[ModelSource], depth: int) -> tuple[M | CombinedModel[M], ...]:
        require_depth(depth)
        return tuple(open_any(model, depth + 1) for model in models)

    def require_no_config() -> None:
        if config is not None:
            raise ModelError(
                f"config must be left out for several models; got {os.fspath(config)!r}: it "
                "describes one checkpoint"
            )

    return open_any(source, 1)


def leaves(model: M | CombinedModel[M]) -> Iterator[M]:
    """Yields the single models that a model consists of: itself, if it is not a combination."""
    if isinstance(model, CombinedModel):
        for member in model.members:
            yield from leaves(member)
    else:
        yield model


def _find_combination(source: ModelSource | None) -> Ensemble | Chain | None:
    if isinstance(source, (Ensemble, Chain)):
        return source
    if isinstance(source, (str, os.PathLike)) and Path(source).suffix == COMBINATION_SUFFIX:
        return read_combination(Path(source))
    if isinstance(source, (str, os.PathLike)):
        files = registry.find_members(os.fspath(source))
        if len(files) > 1:
            return Ensemble(
                [f.path for f in files], stems=[f.stems for f in files], name=str(source)
            )
    return None


def _combined(
    combination: Ensemble | Chain, members: tuple[M | CombinedModel[M], ...]
) -> CombinedModel[M]:
    manifests = tuple(member.manifest for member in members)
    stems = _stems(combination, manifests)
    return CombinedModel(combination, members, stems, _manifest(combination, manifests, stems))


def _stems(combination: Ensemble | Chain, manifests: tuple[Manifest, ...]) -> CombinedStems:
    if isinstance(combination, Ensemble):
        return ensemble_stems(combination, manifests)
    return chain_stems(combination, *manifests)


def _manifest(
    combination: Ensemble | Chain, manifests: tuple[Manifest, ...], stems: CombinedStems
) -> CombinedManifest:
    names, first = [manifest.name for manifest in manifests], manifests[0]
    settings: dict[str, Any]
    if isinstance(combination, Ensemble):
        settings = {"ensemble": names, "method": combination.method}
        settings |= {"weights": combination.weights, "stems_of_models": combination.stems}
        joined = "+".join(names)
    else:
        settings = {"chain": names, "stem": combination.stem}
        joined = "-then-".join(names)
    seconds = max(manifest.chunk / manifest.sample_rate for manifest in manifests)
    return CombinedManifest(
        name=combination.name or joined[:200],
        stems=stems.stems,
        residual=stems.residual,
        sample_rate=first.sample_rate,
        channels=max(manifest.channels for manifest in manifests),
        n_fft=first.n_fft,
        hop=first.hop,
        chunk=min(round(seconds * first.sample_rate), MAX_CHUNK),
        overlap=first.overlap,
        parameters=sum(manifest.parameters for manifest in manifests),
        licence="; ".join(dict.fromkeys(manifest.licence for manifest in manifests)),
        members=manifests,
        settings=settings,
    )
