"""Finds the file that a model's name or path stands for: the same in every command and call."""

from __future__ import annotations

import os
from pathlib import Path

from bsmamba2.errors import ModelError, printable
from bsmamba2.formats.checkpoint import Checkpoint, read_checkpoint
from bsmamba2.models import registry

CHECKPOINT_SUFFIXES = (".ckpt", ".pt", ".pth", ".th", ".safetensors")
SUFFIXES = (".onnx", ".engine", *CHECKPOINT_SUFFIXES)
COMBINATION_SUFFIX = ".json"
"""Suffix of a file that combines models; see :mod:`bsmamba2.models.combination`."""
BAG_SUFFIXES = (".yaml", ".yml")
"""Suffixes of Demucs' files that combine models; see :mod:`bsmamba2.models.demucs_bag`."""


def find_model_path(model: str | os.PathLike[str] | None) -> Path:
    """Returns the path of a model. A name of the registry is preferred to a file of that name.

    Args:
        model: a name from the registry, or a path, which may start with ``~``. None or empty: the
            shipped model.

    Raises:
        ModelError: there is none, or its suffix is unknown.
    """
    named = registry.find_path(os.fspath(model) if model else registry.DEFAULT)
    if named is not None:
        return named
    if not model:
        raise ModelError(
            f"model must be given, because this copy contains none: {_how_to_get_one()}"
        )
    path = Path(os.path.expanduser(model))  # noqa: PTH111 - Path's raises without a home
    if not os.path.exists(path):  # noqa: PTH110 - Path.exists raises if the name is too long
        shown = printable(repr(str(model)))
        if path.suffix in SUFFIXES or len(path.parts) > 1:
            raise ModelError(f"there is no model file {shown}: check its name and folder")
        near = registry.hint(path.name) or _how_to_get_one()
        raise ModelError(f"there is no model called {shown}: {near}")
    if path.suffix in (COMBINATION_SUFFIX, *BAG_SUFFIXES):
        raise ModelError(f"model must be one model; got {str(path)!r}, which combines several")
    if path.suffix not in SUFFIXES:
        known = ", ".join((*SUFFIXES, COMBINATION_SUFFIX))
        raise ModelError(f"model must be a file in {known}; got {str(path)!r}")
    return path


def open_checkpoint(model: str | os.PathLike[str]) -> Checkpoint:
    """Reads the checkpoint with that name or path.

    Raises:
        ModelError: there is none, it is damaged, or it is no longer the published file; or the
            model is an export, which contains a graph instead of a checkpoint.
    """
    path = find_model_path(model)
    if path.suffix not in CHECKPOINT_SUFFIXES:
        raise ModelError(
            f"model must be a checkpoint, in {', '.join(CHECKPOINT_SUFFIXES)}; got {path.name!r}, "
            "which was exported from one: give that checkpoint, or its name"
        )
    checkpoint = read_checkpoint(path)
    registry.require_published(path, checkpoint.sha256)
    return checkpoint


def from_any_folder(model: str | os.PathLike[str]) -> str:
    """Returns a registered name unchanged, and any path absolute: the same model in every folder.

    It does not check that there is such a model.
    """
    name = os.fspath(model)
    if name in registry.names():
        return name
    return os.path.abspath(os.path.expanduser(name))  # noqa: PTH100, PTH111 - as find_model_path


def _how_to_get_one() -> str:
    first = registry.PUBLISHED[0].name
    return (
        f"choose as model {first} (once: bsmamba2 models fetch {first}), another name from "
        "bsmamba2 models, a checkpoint, or an .onnx from bsmamba2 export"
    )
