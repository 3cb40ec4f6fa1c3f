"""Writes an exported model with its manifest, with or without weights."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import ModelProto, TensorProto

from bsmamba2.errors import ModelError, first_line
from bsmamba2.formats.manifest import METADATA_KEY, Manifest
from bsmamba2.formats.onnx_file import WEIGHTLESS


def set_manifest(model: ModelProto, manifest: Manifest) -> None:
    """Sets the manifest in the model's metadata, replacing an earlier one."""
    kept = [entry for entry in model.metadata_props if entry.key != METADATA_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    onnx.helper.set_model_props(model, {METADATA_KEY: manifest.to_json()})


def without_weights(model: ModelProto, names: set[str]) -> ModelProto:
    """Returns a copy without the named initialisers, which are supplied when it is loaded."""
    graph = ModelProto()
    graph.CopyFrom(model)
    for value in graph.graph.initializer:
        if value.name in names:
            value.ClearField("raw_data")
            value.ClearField("float_data")
            value.data_location = TensorProto.EXTERNAL
            del value.external_data[:]
            value.external_data.add(key="location", value=WEIGHTLESS)
    return graph


def write(model: ModelProto, path: Path) -> None:
    """Writes the model to a file; equal models give equal bytes.

    Raises:
        ModelError: the file cannot be written.
    """
    try:
        path.write_bytes(model.SerializeToString(deterministic=True))
    except OSError as error:
        raise ModelError(f"{path} cannot be written: {first_line(error)}") from None
