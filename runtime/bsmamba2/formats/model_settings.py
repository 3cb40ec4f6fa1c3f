"""What a model's tensors do not tell: hop, chunk, names of stems and a few switches.

It comes, in this order, from the user's yaml, from the catalogue, and from the metadata of the
file. What none of them states is a guess: the value of the shipped graph.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bsmamba2.formats.manifest import Manifest, default_overlap, residual_of

ASSUMED = "assumed"
"""The origin of a setting that nobody states: it is that of the shipped graph."""


@dataclass(frozen=True)
class ModelSettings:
    """Settings of a checkpoint; None where they are not known. Lengths are in samples."""

    stems: tuple[str, ...] | None = None
    residual: str | None = None
    sample_rate: int | None = None
    hop: int | None = None
    chunk: int | None = None
    overlap: float | None = None
    zero_dc: bool | None = None
    normalize: bool | None = None

    def over(self, other: ModelSettings) -> ModelSettings:
        """Returns these settings, and the other's where these are unknown."""
        return dataclasses.replace(other, **self._known())

    def apply(self, manifest: Manifest) -> Manifest:
        """Returns a manifest with the known settings.

        Raises:
            ModelError: a setting is out of range.
        """
        changes = self._known()
        stems = changes.get("stems", manifest.stems)
        chunk = changes.get("chunk", manifest.chunk)
        sample_rate = changes.get("sample_rate", manifest.sample_rate)
        if "stems" in changes:
            changes.setdefault("residual", residual_of(stems))
        if "chunk" in changes or "sample_rate" in changes:
            changes.setdefault("overlap", default_overlap(chunk, sample_rate))
        return manifest.replace(**changes)

    def unknown(self, family: str) -> tuple[str, ...]:
        """Returns the names of the settings that a network of this family needs and nobody states.

        BSMamba2 and HT Demucs are published with one hop, and with nothing to switch.
        """
        needed = {
            "bs_roformer": ("stems", "hop", "chunk", "zero_dc"),
            "mel_band_roformer": ("stems", "hop", "chunk", "zero_dc"),
            "scnet": ("stems", "chunk", "normalize"),
            "htdemucs": ("stems",),
            "bs_mamba2": ("stems", "hop", "chunk"),
        }[family]
        return tuple(name for name in needed if getattr(self, name) is None)

    def stated(self) -> tuple[str, ...]:
        """Returns the names of the settings that are known."""
        return tuple(self._known())

    def _known(self) -> dict[str, Any]:
        fields = ((field.name, getattr(self, field.name)) for field in dataclasses.fields(self))
        return {name: value for name, value in fields if value is not None}

    @classmethod
    def from_stored(cls, text: str) -> ModelSettings:
        """Reads the sizes that our safetensors files state as JSON.

        Raises:
            ValueError, TypeError, KeyError, ArithmeticError, RecursionError, AttributeError: the
                text is damaged.
        """
        stored: Mapping[str, Any] = json.loads(text)
        zero_dc, normalize = stored.get("zero_dc"), stored.get("normalize")
        return cls(
            stems=tuple(str(stem) for stem in stored["stems"]),
            sample_rate=int(stored["sample_rate"]),
            hop=int(stored["hop"]),
            chunk=int(stored["chunk"]),
            zero_dc=None if zero_dc is None else bool(zero_dc),
            normalize=None if normalize is None else bool(normalize),
        )


def origins(
    stated: Mapping[str, ModelSettings], guesses: tuple[str, ...] = ()
) -> dict[str, tuple[str, ...]]:
    """Returns which settings each origin decides; origins that decide none are left out.

    Args:
        stated: the settings by origin, the most important origin first.
        guesses: settings that the network needs and that no origin states.
    """
    decided: set[str] = set()
    found: dict[str, tuple[str, ...]] = {}
    for origin, settings in stated.items():
        found[origin] = tuple(name for name in settings.stated() if name not in decided)
        decided.update(found[origin])
    found[ASSUMED] = guesses
    return {origin: names for origin, names in found.items() if names}
