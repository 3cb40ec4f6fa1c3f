"""Turns the name or path of a model into a :class:`~bsmamba2.models.model.Model` of its kind."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from bsmamba2.errors import ModelError, printable
from bsmamba2.models import registry
from bsmamba2.models.checkpoint_model import CheckpointModel
from bsmamba2.models.onnx_model import OnnxModel

if TYPE_CHECKING:
    from bsmamba2.models.model import Model

CHECKPOINT_SUFFIXES = (".ckpt", ".pt", ".pth", ".th", ".safetensors")
SUFFIXES = (".onnx", ".engine", *CHECKPOINT_SUFFIXES)
COMBINATION_SUFFIX = ".json"
"""Suffix of a file that combines models; see :mod:`bsmamba2.models.combination`."""
BAG_SUFFIXES = (".yaml", ".yml")
"""Suffixes of Demucs' files that combine models; see :mod:`bsmamba2.models.demucs_bag`."""


def open_model(
    model: str | os.PathLike[str] | None = None,
    *,
    config: str | os.PathLike[str] | None = None,
    trust_engine: bool = False,
) -> Model:
    """Reads a model without loading it into an engine.

    Args:
        model: a name from the registry, or the path of an ``.onnx``, ``.engine``, ``.ckpt``,
            ``.pt``, ``.pth``, ``.th`` or ``.safetensors`` file. None or empty: the shipped model.
        config: MSST's yaml of a checkpoint, for what its tensors do not tell.
        trust_engine: whether to load an ``.engine`` that this user did not build; it can run any
            code.

    Raises:
        ModelError: there is no such model, or it is damaged, is of another network, or has a size
            that must be exported first.
    """
    path = find_model_path(model)
    if config is not None and path.suffix not in CHECKPOINT_SUFFIXES:
        raise ModelError(
            f"config must be left out for {path.name}, which contains its settings; it is for "
            f"checkpoints ({', '.join(CHECKPOINT_SUFFIXES)})"
        )
    if path.suffix == ".onnx":
        return OnnxModel(path)
    if path.suffix == ".engine":
        # Imported here, because nothing else needs TensorRT.
        from bsmamba2.models.tensorrt_model import TensorRtModel

        return TensorRtModel(path, trust_engine)
    return CheckpointModel(path, None if config is None else Path(config))


def find_model_path(model: str | os.PathLike[str] | None) -> Path:
    """Returns the path of a model.

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
    path = Path(model)
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


def _how_to_get_one() -> str:
    first = registry.PUBLISHED[0].name
    return (
        f"use --model (model=) with {first} (once: bsmamba2 models fetch {first}), another name "
        "from bsmamba2 models, a checkpoint, or an .onnx from bsmamba2 export"
    )
