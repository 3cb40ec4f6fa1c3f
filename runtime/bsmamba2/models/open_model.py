"""Turns the name or path of a model into a :class:`~bsmamba2.models.model.Model` of its kind."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from bsmamba2.errors import ModelError
from bsmamba2.models.checkpoint_model import CheckpointModel
from bsmamba2.models.model_file import CHECKPOINT_SUFFIXES, find_model_path
from bsmamba2.models.onnx_model import OnnxModel

if TYPE_CHECKING:
    from bsmamba2.models.model import Model


def open_model(
    model: str | os.PathLike[str] | None = None,
    *,
    config: str | os.PathLike[str] | None = None,
    trust_engine: bool = False,
    precision: str = "fp32",
) -> Model:
    """Reads a model without loading it into an engine.

    Args:
        model: a name from the registry, or the path of an ``.onnx``, ``.engine``, ``.ckpt``,
            ``.pt``, ``.pth``, ``.th`` or ``.safetensors`` file. None or empty: the shipped model.
        config: MSST's yaml of a checkpoint, for what its tensors do not tell.
        trust_engine: whether to load an ``.engine`` that this user did not build; it can run any
            code.
        precision: of a checkpoint's products, ``fp32``, or ``fp16`` or ``bf16`` for GPUs.

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
    if precision != "fp32" and path.suffix not in CHECKPOINT_SUFFIXES:
        raise ModelError(
            f"precision must be left out for {path.name}, which has its own; it is for checkpoints "
            f"({', '.join(CHECKPOINT_SUFFIXES)})"
        )
    if path.suffix == ".onnx":
        return OnnxModel(path)
    if path.suffix == ".engine":
        # Imported here, because nothing else needs TensorRT.
        from bsmamba2.models.tensorrt_model import TensorRtModel

        return TensorRtModel(path, trust_engine)
    return CheckpointModel(path, None if config is None else Path(config), precision)
