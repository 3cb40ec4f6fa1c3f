"""Reads the yaml files of Music-Source-Separation-Training (MSST) that accompany checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bsmamba2.errors import ModelError, printable
from bsmamba2.formats.families import TITLES, stated_sizes
from bsmamba2.formats.model_settings import ModelSettings
from bsmamba2.formats.yaml_file import read_yaml


def settings_from_yaml(
    path: Path, family: str, shapes: Mapping[str, tuple[int, ...]]
) -> ModelSettings:
    """Reads the settings of a checkpoint from its yaml.

    Args:
        path: the yaml.
        family: the checkpoint's network.
        shapes: the shapes of its tensors, which the yaml must agree with.

    Raises:
        ModelError: the yaml cannot be read, or contradicts the checkpoint; the message names both.
    """
    document = read_yaml(path)
    try:
        sections = {name: document.get(name) or {} for name in ("audio", "training", "inference")}
        model = document.get("htdemucs" if family == "htdemucs" else "model") or {}
        if not all(isinstance(section, Mapping) for section in (model, *sections.values())):
            raise TypeError("a section is not a mapping")
        _require_agreement(model, family, shapes, path)
        return _settings(model, family, **sections)
    except (TypeError, ValueError, KeyError, ArithmeticError, AttributeError) as error:
        reason = printable(str(error))
        raise ModelError(f"config must be MSST's yaml of the model; got {path}: {reason}") from None


def _require_agreement(
    model: Mapping[str, Any], family: str, shapes: Mapping[str, tuple[int, ...]], path: Path
) -> None:
    for name, size in stated_sizes(family, shapes).items():
        if name in model and model[name] != size:
            raise ModelError(
                f"config's model.{name} must be that of the checkpoint, a {TITLES[family]} with "
                f"{size}; got {printable(repr(model[name]))} in {path}"
            )


def _settings(
    model: Mapping[str, Any],
    family: str,
    audio: Mapping[str, Any],
    training: Mapping[str, Any],
    inference: Mapping[str, Any],
) -> ModelSettings:
    instruments = [_plain(name) for name in training.get("instruments") or []]
    target = training.get("target_instrument")
    stems = [_plain(target)] if target else instruments
    others = [name for name in instruments if name not in stems]
    sample_rate = int(audio.get("sample_rate", model.get("samplerate", 44100)))
    chunk = inference.get("chunk_size", audio.get("chunk_size"))
    if family == "htdemucs" and "segment" in training:
        chunk = round(float(training["segment"]) * sample_rate)
    hop = model.get("stft_hop_length", model.get("hop_size"))
    overlaps = inference.get("num_overlap")
    is_roformer = family in ("bs_roformer", "mel_band_roformer")
    # A yaml that does not state it means MSST's default.
    zero_dc = model.get("zero_dc", True) if is_roformer else None
    normalize = inference.get("normalize")
    return ModelSettings(
        stems=tuple(stems) or None,
        residual=others[0] if len(others) == 1 and stems != ["vocals"] else None,
        sample_rate=sample_rate,
        hop=None if hop is None else int(hop),
        chunk=None if chunk is None else int(chunk),
        overlap=None if overlaps is None else 1 - 1 / int(overlaps),
        zero_dc=None if zero_dc is None else bool(zero_dc),
        normalize=bool(normalize) if family == "scnet" else None,
    )


def _plain(name: object) -> str:
    """Returns an instrument's name as a stem's name: lower case, without spaces."""
    return str(name).strip().lower().replace(" ", "_")
