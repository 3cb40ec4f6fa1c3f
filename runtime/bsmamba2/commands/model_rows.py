"""The rows of ``bsmamba2 models``: shipped and published models in one form, and their filter."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bsmamba2.errors import ModelError, not_one_of
from bsmamba2.formats.stem_names import find_stem
from bsmamba2.models import registry
from bsmamba2.models.cached_file import cached_files, find_cached
from bsmamba2.models.catalogue import AVERAGE, Figures, Published
from bsmamba2.models.open_model import open_model


@dataclass(frozen=True)
class ModelRow:
    """A model in the list."""

    name: str
    family: str
    purpose: str
    outputs: tuple[str, ...]
    licence: str
    size: int | None
    """Bytes; None if they are not known."""
    paths: tuple[Path, ...]
    """Its files; empty if it is not downloaded."""
    figures: tuple[Figures, ...] = ()
    about: str = ""
    published: Published | None = None
    """None for the weights in the package."""

    def figure(self, stem: str | None = None) -> tuple[float, str] | None:
        """Returns the first published SDR in dB, and its test set.

        Args:
            stem: a stem or its alias. Default: the average, or the first of one or two stems.
        """
        if stem is not None:
            wanted = [find_stem(stem.lower(), self.outputs)] if separates(self, stem) else []
        else:
            few = self.published is not None and len(self.published.stems) <= 2
            wanted = [AVERAGE, self.outputs[0]] if few else [AVERAGE]
        for figures in self.figures:
            for name in wanted:
                if name in figures.sdr_db:
                    return figures.sdr_db[name], figures.test_set
        return None

    def to_json(self) -> dict[str, Any]:
        """Returns the row as JSON values; ``path`` is null if the model is not downloaded."""
        row: dict[str, Any] = {
            "name": self.name,
            "family": self.family,
            "purpose": self.purpose,
            "stems": list(self.outputs),
            "bytes": self.size,
            "licence": self.licence,
            "about": self.about,
            "path": str(self.paths[0]) if len(self.paths) == 1 else None,
            "paths": [str(path) for path in self.paths],
            "figures": [
                {"test_set": f.test_set, "source": f.source, "sdr_db": dict(f.sdr_db)}
                for f in self.figures
            ],
        }
        if self.published is not None:
            row["page"] = self.published.page
            row["files"] = [
                {
                    "stems": list(cached.file.stems),
                    "url": cached.source.url,
                    "bytes": cached.source.size,
                    "sha256": cached.sha256,
                    "pinned": cached.source.sha256 is None and cached.sha256 is not None,
                    "path": str(cached.path) if cached.is_fetched else None,
                }
                for cached in cached_files(self.published)
            ]
        return row


@dataclass(frozen=True)
class ModelFilter:
    """What a model must have to be listed; None for anything. Case does not matter."""

    stem: str | None = None
    purpose: str | None = None
    family: str | None = None
    licence: str | None = None

    def choose(self, rows: Sequence[ModelRow]) -> list[ModelRow]:
        """Returns the rows that have all of it.

        Raises:
            ModelError: no model at all has one of the values; the message lists those there are.
        """
        purpose = _known("purpose", self.purpose, (row.purpose for row in rows))
        licence = _known("licence", self.licence, (row.licence for row in rows))
        stem = self.stem
        if stem is not None and not any(separates(row, stem) for row in rows):
            stem = _known("stem", stem, (name for row in rows for name in row.outputs))
        return [
            row
            for row in rows
            if purpose in (None, row.purpose)
            and licence in (None, row.licence)
            and self.family in (None, row.family)
            and (stem is None or separates(row, stem))
        ]


def listed_models() -> list[ModelRow]:
    """Returns all named models: the shipped ones, then those of the catalogues."""
    rows = [_shipped(name, path) for name, path in registry.shipped().items()]
    return rows + [_published(model) for model in registry.published()]


def describe_figures(figures: Figures) -> str:
    """Returns published results in one line."""
    values = ", ".join(f"{stem} {value:.2f}" for stem, value in figures.sdr_db.items())
    return f"SDR {values} dB (test set: {figures.test_set}; measured by {figures.source})"


def megabytes(size: int | None) -> str:
    """Formats a size in MB."""
    return "?" if size is None else f"{size / 1e6:.0f}"


def _shipped(name: str, path: Path) -> ModelRow:
    manifest = open_model(path).manifest
    purpose, _, about = registry.ABOUT.get(name, ", ".join(manifest.stems)).partition("; ")
    return ModelRow(
        name=name,
        family=manifest.family,
        purpose=purpose,
        outputs=manifest.available,
        licence=manifest.licence,
        size=path.stat().st_size,
        paths=(path,),
        about=f"{about}; in the package",
    )


def _published(model: Published) -> ModelRow:
    return ModelRow(
        name=model.name,
        family=model.family,
        purpose=model.purpose,
        outputs=model.outputs,
        licence=model.licence,
        size=model.size,
        paths=tuple(cached.path for cached in find_cached(model)),
        figures=model.figures,
        about=model.note,
        published=model,
    )


def _known(name: str, wanted: str | None, known: Iterable[str]) -> str | None:
    """Returns the known value that is meant; hyphens and underlines stand for spaces."""
    if wanted is None:
        return None
    values = sorted(set(known))
    for value in values:
        if _plain(value) == _plain(wanted):
            return value
    raise ModelError(not_one_of(name, values, wanted))


def _plain(text: str) -> str:
    return text.lower().replace("_", " ").replace("-", " ")


def separates(row: ModelRow, stem: str) -> bool:
    """Whether a model has a stem of that name or alias."""
    try:
        find_stem(stem.lower(), row.outputs)
    except ModelError:
        return False
    return True
