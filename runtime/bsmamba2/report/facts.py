"""What a report states about the song, the model, the settings and the versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

from bsmamba2 import installation
from bsmamba2.formats.families import TITLES
from bsmamba2.models.combined_model import leaves

if TYPE_CHECKING:
    from bsmamba2.models.combined_model import CombinedModel
    from bsmamba2.models.loaded_model import LoadedModel

Facts: TypeAlias = Mapping[str, Mapping[str, str]]
"""Tables by their titles."""


def facts_of(
    model: LoadedModel | CombinedModel[LoadedModel],
    song: Mapping[str, str],
    settings: Mapping[str, str],
    overlap: float | None,
) -> Facts:
    """Returns the tables of a report.

    Args:
        model: the loaded model, with one table for each model of a combination.
        song, settings: rows of these tables.
        overlap: of neighbouring chunks; None: each model's own.
    """
    tables: dict[str, Mapping[str, str]] = {"Song": song}
    for number, one in enumerate(leaves(model), 1):
        manifest = one.manifest
        used = manifest.overlap if overlap is None else overlap
        title = "Model" if one is model else f"Model {number}"
        tables[title] = {
            "Name": manifest.name,
            "Network": TITLES[manifest.family],
            "Licence of the weights": manifest.licence,
            "SHA-256 of the checkpoint": manifest.checkpoint_sha256 or "not stated",
            "Chunk": f"{manifest.chunk / manifest.sample_rate:g} s at {manifest.sample_rate} Hz",
            "Overlap": f"{used:g}",
            "Device": str(one.device),
            "Speed": f"{one.speed}, {one.products}",
        }
    return {**tables, "Settings": settings, "Versions": versions()}


def versions() -> dict[str, str]:
    """Returns the rows of the table of versions."""
    own, python, platform, *packages = installation.report().splitlines()
    rows = dict(line.split(" ", 1) for line in (own, python, *packages))
    return {**rows, "Platform": platform}
