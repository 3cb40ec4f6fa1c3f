"""The shipped graphs without weights, and how a checkpoint is poured into one of them.

A graph's initialisers have the checkpoint's names and shapes, so the checkpoint's tensors
determine its graph. There are three for each size: for chunks as spectra, for chunks as
audio, and for the steps of a stream.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files
from typing import Any

from bsmamba2.audio import fourier
from bsmamba2.audio.array import Audio
from bsmamba2.errors import ModelError
from bsmamba2.files.hashing import file_sha256
from bsmamba2.formats.checkpoint import CONFIG_KEY, MARK, Checkpoint, match
from bsmamba2.formats.manifest import Manifest, default_overlap, residual_of
from bsmamba2.formats.onnx_file import OnnxFile, read_onnx


@dataclass(frozen=True)
class Graph:
    """An ONNX file, and the weights to pour into it: what ONNX Runtime loads."""

    file: OnnxFile
    manifest: Manifest
    weights: Mapping[str, Audio] | None = None
    """Every missing initialiser by name; None if the file contains its weights."""

    @property
    def sha256(self) -> str:
        """The SHA-256 of each file of the model and of its checkpoint; they identify the model."""
        parts = [file_sha256(path) for path in (self.file.path, *self.file.data)]
        return " ".join([*parts, self.manifest.checkpoint_sha256 or ""])


@cache
def shipped_graphs() -> tuple[OnnxFile, ...]:
    """Returns the graphs without weights in the package, three for each size."""
    folder = files("bsmamba2.models") / "graphs"
    found = []
    for entry in sorted(folder.iterdir(), key=lambda item: item.name):
        if entry.name.endswith(".onnx"):
            with as_file(entry) as path:
                found.append(read_onnx(path))
    return tuple(found)


def find_graph(
    checkpoint: Checkpoint, *, streaming: bool = False, io: str = "spectrum"
) -> OnnxFile:
    """Returns the shipped graph whose initialisers are this checkpoint's tensors.

    Args:
        checkpoint: the tensors and their metadata.
        streaming: whether to return the graph for the steps of a stream instead of whole chunks.
        io: input of the graph for whole chunks, ``spectrum`` or ``waveform``.

    Raises:
        ModelError: no graph matches; the message names the differences from the nearest one.
    """
    shapes = {name: tensor.shape for name, tensor in checkpoint.tensors.items()}

    def differences(graph: OnnxFile) -> int:
        expected = graph.manifest.initialisers
        return sum(shapes.get(key) != shape for key, shape in expected.items()) + len(
            shapes.keys() - expected.keys()
        )

    graphs = [
        graph
        for graph in shipped_graphs()
        if graph.manifest.streaming == streaming and graph.manifest.io == io
    ]
    nearest = min(graphs, key=differences)
    if differences(nearest) * 2 > len(nearest.manifest.initialisers) and MARK in shapes:
        sizes = ", ".join(graph.path.stem for graph in graphs)
        raise ModelError(
            f"{checkpoint.name} has a size without a shipped graph (there are {sizes}): export it "
            "first with bsmamba2 export CHECKPOINT -o model.onnx, which needs the extra [export]"
        )
    match(checkpoint.tensors, nearest.manifest.initialisers, checkpoint.name)
    return nearest


def pour(checkpoint: Checkpoint, *, streaming: bool = False, io: str = "spectrum") -> Graph:
    """Combines a checkpoint with its shipped graph; the tensors are shared, not copied.

    A graph for audio contains the Fourier transform for one hop. A checkpoint that states another
    hop gets the graph for spectra instead.

    Args:
        checkpoint, streaming, io: as for :func:`find_graph`.

    Raises:
        ModelError: as for :func:`find_graph`, or the sizes that the checkpoint states are damaged.
    """
    file = find_graph(checkpoint, streaming=streaming, io=io)
    manifest = poured_manifest(file.manifest, checkpoint)
    if io != "waveform":
        return Graph(file, manifest, checkpoint.tensors)
    if manifest.hop != file.manifest.hop:
        return pour(checkpoint)
    matrices = fourier.matrices(manifest.n_fft, manifest.hop)
    return Graph(file, manifest, {**checkpoint.tensors, **matrices})


def poured_manifest(graph: Manifest, checkpoint: Checkpoint) -> Manifest:
    """Returns the graph's manifest with the checkpoint's name, hash, licence and stated lengths."""
    changes: dict[str, Any] = {
        "name": checkpoint.title,
        "checkpoint_sha256": checkpoint.sha256,
    }
    if checkpoint.licence is not None:
        changes["licence"] = checkpoint.licence
    if CONFIG_KEY in checkpoint.metadata:
        try:
            stored = json.loads(checkpoint.metadata[CONFIG_KEY])
            changes |= _lengths(stored)
        except (ValueError, TypeError, KeyError, ArithmeticError, RecursionError, AttributeError):
            raise ModelError(
                f"the sizes stored in {checkpoint.name} are damaged: download it again"
            ) from None
        if len(changes["stems"]) != len(graph.stems):
            raise ModelError(
                f"{checkpoint.name} names {len(changes['stems'])} stems, but its weights are for "
                f"{len(graph.stems)}: it is damaged; download it again"
            )
    return graph.replace(**changes)


def widened_manifest(manifest: Manifest, graph: Manifest) -> Manifest:
    """Returns the manifest of a reduced-precision model whose weights are poured into ``graph``."""
    kept = {"precision": "fp32", "weights": "fp32", "check": None}
    return manifest.replace(io=graph.io, target=graph.target, **kept)


def _lengths(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values that the weights do not determine; a graph for spectra works with any."""
    stems = tuple(str(stem) for stem in stored["stems"])
    chunk, sample_rate = int(stored["chunk"]), int(stored["sample_rate"])
    return {
        "stems": stems,
        "residual": residual_of(stems),
        "sample_rate": sample_rate,
        "hop": int(stored["hop"]),
        "chunk": chunk,
        "overlap": default_overlap(chunk, sample_rate),
    }
