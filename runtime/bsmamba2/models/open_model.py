"""Turns the name or path of a model into a :class:`~bsmamba2.models.model.Model` of its kind."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from bsmamba2.models.checkpoint_model import CheckpointModel
from bsmamba2.models.model_file import find_model_path
from bsmamba2.models.onnx_model import OnnxModel

if TYPE_CHECKING:
    from bsmamba2.models.model import Model


def open_model(model: str | os.PathLike[str] | None = None, *, trust_engine: bool = False) -> Model:
    """Reads a model without loading it into an engine.

    Args:
        model: a name from the registry, or the path of an ``.onnx``, ``.engine``, ``.ckpt``,
            ``.pt``, ``.pth`` or ``.safetensors`` file. None or empty: the shipped model.
        trust_engine: whether to load an ``.engine`` that this user did not build; it can run any
            code.

    Raises:
        ModelError: there is no such model, or it is damaged, is of another network, or has a size
            that must be exported first.
    """
    path = find_model_path(model)
    if path.suffix == ".onnx":
        return OnnxModel(path)
    if path.suffix == ".engine":
        # Imported here, because nothing else needs TensorRT.
        from bsmamba2.models.tensorrt_model import TensorRtModel

        return TensorRtModel(path, trust_engine)
    return CheckpointModel(path)
