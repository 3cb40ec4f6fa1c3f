"""Hand-written models that are small enough for every test, run by ONNX Runtime itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from onnx import TensorProto, helper, numpy_helper

from bsmamba2 import Manifest
from bsmamba2.audio.array import Audio
from bsmamba2.engines.step_engine import StepEngine
from bsmamba2.formats.manifest import METADATA_KEY
from bsmamba2.models.graph import shipped_graphs
from bsmamba2.models.open_model import open_model

MANIFEST = Manifest("gain", n_fft=16, hop=4, chunk=64)


def gain_model(
    manifest: Manifest | None = MANIFEST, location: str | None = None, gain: float = 0.5
) -> bytes:
    """One stem, the spectrum times a gain.

    Args:
        location: file of the factor; None stores it inside the model.
    """
    factor = numpy_helper.from_array(np.full(1, gain, np.float32), "factor")
    if location:
        factor.ClearField("raw_data")
        factor.data_location = TensorProto.EXTERNAL
        factor.external_data.add(key="location", value=location)
    one = numpy_helper.from_array(np.array([1]), "one")
    nodes = [
        helper.make_node("Mul", ["spectrum", "factor"], ["half"]),
        helper.make_node("Unsqueeze", ["half", "one"], ["stems"]),
    ]
    kinds = [
        helper.make_tensor_value_info("spectrum", TensorProto.FLOAT, ["b", 2, "t", 9, 2]),
        helper.make_tensor_value_info("stems", TensorProto.FLOAT, ["b", 1, 2, "t", 9, 2]),
    ]
    graph = helper.make_graph(nodes, "g", kinds[:1], kinds[1:], [factor, one])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    if manifest:
        helper.set_model_props(model, {METADATA_KEY: manifest.to_json()})
    content: bytes = model.SerializeToString()
    return content


def random_weights(size: str = "tiny", seed: int = 0) -> dict[str, Audio]:
    """Returns random tensors for a shipped graph; its output is finite and not silent."""
    random = np.random.default_rng(seed)
    (graph,) = [graph for graph in shipped_graphs() if graph.path.stem == size]
    return {
        name: random.normal(0, 0.3 / max(shape[-1:], default=1) ** 0.5, shape).astype(np.float32)
        for name, shape in graph.manifest.initialisers.items()
    }


def write_checkpoint(
    path: Path, weights: Mapping[str, Audio] | None = None, **metadata: str
) -> Path:
    """Writes a safetensors checkpoint; by default random weights of the size ``tiny``.

    Args:
        metadata: ``licence`` and ``config`` of the file, in the form that checkpoints store them.
    """
    tensors = random_weights() if weights is None else dict(weights)
    stored = {f"bsmamba2.{key}": value for key, value in metadata.items()}
    safetensors.numpy.save_file(tensors, path, stored or None)
    return path


def open_engine(
    model: str | os.PathLike[str] | None = None, device: str = "auto", *, verify: bool = True
) -> Any:
    """Opens an engine for whole chunks, by the name or path of a model."""
    opened = open_model(model)
    return opened.chunk_engine(opened.choose_device(device), verify=verify)


def open_step_engine(
    model: str | os.PathLike[str] | None = None, device: str = "auto", *, verify: bool = True
) -> StepEngine:
    """Opens an engine for the steps of a stream, by the name or path of a model."""
    opened = open_model(model)
    return opened.step_engine(opened.choose_device(device), verify=verify)
