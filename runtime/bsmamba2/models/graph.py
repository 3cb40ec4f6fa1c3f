"""The shipped graphs without weights, and how a checkpoint is poured into one of them.

A graph's initialisers have the checkpoint's names and shapes, so the checkpoint's tensors
determine its graph. There are five for each size of BSMamba2: for chunks as spectra, for chunks
as audio, in float32 and in the two precisions of GPUs, and for the steps of a stream. Each size of
another network has one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np

from bsmamba2.audio import fourier
from bsmamba2.audio.array import Audio
from bsmamba2.errors import ModelError, printable
from bsmamba2.files.hashing import file_sha256
from bsmamba2.formats.checkpoint import CONFIG_KEY, Checkpoint, match
from bsmamba2.formats.demucs_package import package_of
from bsmamba2.formats.families import TITLES
from bsmamba2.formats.manifest import FAMILIES, Manifest
from bsmamba2.formats.model_settings import ModelSettings
from bsmamba2.formats.onnx_file import OnnxFile, read_onnx


class UnshippedSizeError(ModelError):
    """A sound checkpoint of a size that the package has no graph for: it must be exported."""


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
def shipped_graphs(family: str = "bs_mamba2") -> tuple[OnnxFile, ...]:
    """Returns the graphs without weights in the package for the networks of a family.

    Their files have the family's name in front, except those of BSMamba2.
    """
    folder = files("bsmamba2.models") / "graphs"
    found = []
    for entry in sorted(folder.iterdir(), key=lambda item: item.name):
        if entry.name.endswith(".onnx") and _family_of(entry.name) == family:
            with as_file(entry) as path:
                found.append(read_onnx(path))
    return tuple(found)


def _family_of(file_name: str) -> str:
    return next((name for name in FAMILIES if file_name.startswith(name)), "bs_mamba2")


def find_graph(
    checkpoint: Checkpoint,
    *,
    streaming: bool = False,
    io: str = "spectrum",
    precision: str = "fp32",
) -> OnnxFile:
    """Returns the shipped graph whose initialisers are this checkpoint's tensors.

    Args:
        checkpoint: the tensors and their metadata.
        streaming: whether to return the graph for the steps of a stream instead of whole chunks.
        io: input of the graph for whole chunks, ``spectrum`` or ``waveform``, if there are both.
        precision: of the products, ``fp32``, ``fp16`` or ``bf16``. The checkpoint's weights stay
            float32; a graph of lower precision rounds them when it is loaded.

    Raises:
        ModelError: the network has no graph in this precision, or no graph matches; the message
            names the differences from the nearest one.
    """
    shapes = checkpoint.shapes

    def differences(graph: OnnxFile) -> int:
        expected = graph.manifest.initialisers
        return sum(shapes.get(key) != shape for key, shape in expected.items()) + len(
            shapes.keys() - expected.keys()
        )

    shipped = [g for g in shipped_graphs(checkpoint.family) if g.manifest.precision == precision]
    graphs = [graph for graph in shipped if graph.manifest.streaming == streaming]
    if not graphs and precision != "fp32":
        raise ModelError(
            f"precision must be fp32 for {checkpoint.name}: of a {TITLES[checkpoint.family]} there "
            f"is no shipped graph in {precision}: export it with precision={precision!r}"
        )
    graphs = [graph for graph in graphs if graph.manifest.io == io] or graphs
    nearest = min(graphs, key=differences, default=None)
    if nearest is None or differences(nearest) * 2 > len(nearest.manifest.initialisers):
        sizes = ", ".join(graph.path.stem for graph in graphs) or "none"
        raise UnshippedSizeError(
            f"{checkpoint.name} has a size without a shipped graph (of {TITLES[checkpoint.family]} "
            f"there are {sizes}): export it first with bsmamba2 export CHECKPOINT -o model.onnx, "
            "which needs the extra [export]"
        )
    match(checkpoint.tensors, nearest.manifest.initialisers, checkpoint.name)
    _require_shared_angles(checkpoint)
    return nearest


def _require_shared_angles(checkpoint: Checkpoint) -> None:
    """Requires the copies of a RoFormer's rotary embedding to be equal: each axis has one."""
    first: dict[str, tuple[str, Audio]] = {}
    for name, values in checkpoint.tensors.items():
        if not name.endswith(".rotary_embed.freqs"):
            continue
        axis = name.split(".")[2]
        known, angles = first.setdefault(axis, (name, values))
        if not np.array_equal(angles, values):
            raise ModelError(
                f"{checkpoint.name} must have equal copies of its rotary embedding; "
                f"{printable(known)} and {printable(name)} differ: choose another file"
            )


def pour(
    checkpoint: Checkpoint,
    settings: ModelSettings | None = None,
    *,
    streaming: bool = False,
    io: str = "spectrum",
    precision: str = "fp32",
) -> Graph:
    """Combines a checkpoint with its shipped graph; the tensors are shared, not copied.

    A graph for audio contains the Fourier transform for one hop. A checkpoint that states another
    hop gets the graph for spectra instead.

    Args:
        checkpoint, streaming, io, precision: as for :func:`find_graph`.
        settings: what the tensors do not tell. Default: what the file itself states.

    Raises:
        ModelError: as for :func:`find_graph`, or the sizes that the checkpoint states are damaged.
    """
    file = find_graph(checkpoint, streaming=streaming, io=io, precision=precision)
    manifest = poured_manifest(file.manifest, checkpoint, settings)
    if file.manifest.io != "waveform":
        return Graph(file, manifest, checkpoint.tensors)
    if manifest.hop != file.manifest.hop:
        if precision != "fp32":
            raise ModelError(
                f"precision must be fp32 for {checkpoint.name}, whose hop {manifest.hop} has no "
                f"shipped graph in {precision}: export it with precision={precision!r}"
            )
        return pour(checkpoint, settings)
    matrices = fourier.matrices(manifest.n_fft, manifest.hop)
    return Graph(file, manifest, {**checkpoint.tensors, **matrices})


def poured_manifest(
    graph: Manifest, checkpoint: Checkpoint, settings: ModelSettings | None = None
) -> Manifest:
    """Returns the graph's manifest with the checkpoint's name, hash, licence and settings."""
    settings = stored_settings(checkpoint) if settings is None else settings
    changes: dict[str, Any] = {
        "name": checkpoint.title,
        "checkpoint_sha256": checkpoint.sha256,
    }
    if checkpoint.licence is not None:
        changes["licence"] = checkpoint.licence
    stems = graph.stems if settings.stems is None else settings.stems
    if len(stems) != len(graph.stems):
        raise ModelError(
            f"stems of {checkpoint.name} must be {len(graph.stems)}, one for each that its weights "
            f"separate; got {len(stems)}: {printable(', '.join(stems))}"
        )
    manifest = settings.apply(graph.replace(**changes))
    if graph.fixed_length and manifest.chunk != graph.chunk:
        raise ModelError(
            f"chunk of {checkpoint.name} must be {graph.chunk} samples, for which its graph was "
            f"made; got {manifest.chunk}: export it with bsmamba2 export, which makes a graph for "
            "another chunk and needs the extra [export]"
        )
    return manifest


def stored_settings(checkpoint: Checkpoint) -> ModelSettings:
    """Returns the settings that a checkpoint's metadata state.

    Raises:
        ModelError: they are damaged.
    """
    package = package_of(checkpoint.metadata, Path(checkpoint.name))
    if package is not None:
        return ModelSettings(package.stems, sample_rate=package.sample_rate, chunk=package.chunk)
    if CONFIG_KEY not in checkpoint.metadata:
        return ModelSettings()
    try:
        return ModelSettings.from_stored(checkpoint.metadata[CONFIG_KEY])
    except (ValueError, TypeError, KeyError, ArithmeticError, RecursionError, AttributeError):
        raise ModelError(
            f"the sizes stored in {checkpoint.name} are damaged: download it again"
        ) from None


def widened_manifest(manifest: Manifest, graph: Manifest) -> Manifest:
    """Returns the manifest of a reduced-precision model whose weights are poured into ``graph``."""
    kept = {"precision": "fp32", "weights": "fp32", "check": None}
    return manifest.replace(io=graph.io, target=graph.target, **kept)
