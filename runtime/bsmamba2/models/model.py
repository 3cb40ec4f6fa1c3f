"""From what a user calls a model to an engine that runs it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np

from bsmamba2.audio import fourier
from bsmamba2.audio.array import Audio
from bsmamba2.devices import cuda
from bsmamba2.devices.device import choose
from bsmamba2.engines.float32_twin import ReducedPrecisionOrtEngine
from bsmamba2.engines.ort_engine import OrtEngine
from bsmamba2.engines.ort_session import BACKENDS, software
from bsmamba2.engines.step_engine import StepEngine, SteppedEngine, StepsAsEngine
from bsmamba2.errors import ModelError, printable
from bsmamba2.files.cache import cache_folder
from bsmamba2.files.hashing import file_sha256
from bsmamba2.formats.checkpoint import (
    CONFIG_KEY,
    LICENCE_KEY,
    MARK,
    Checkpoint,
    match,
    read_checkpoint,
)
from bsmamba2.formats.engine_file import read_engine
from bsmamba2.formats.manifest import Manifest, default_overlap, residual_of
from bsmamba2.formats.onnx_file import OnnxFile, read_onnx
from bsmamba2.formats.protocols import Engine
from bsmamba2.models import registry
from bsmamba2.models.check import CHECK_STEPS, make_check
from bsmamba2.models.verdict import find_check, keep_check, require_verdict

CHECKPOINT_SUFFIXES = (".ckpt", ".pt", ".pth", ".safetensors")


@dataclass(frozen=True)
class Readable:
    """A model, read and ready for an engine."""

    file: OnnxFile
    manifest: Manifest
    weights: Mapping[str, Audio] | None = None
    """To pour into the file, if it has none."""

    @property
    def sha256(self) -> str:
        """Of all the bytes that make it."""
        parts = [file_sha256(path) for path in (self.file.path, *self.file.data)]
        return " ".join([*parts, self.manifest.checkpoint_sha256 or ""])


def open_engine(
    model: str | os.PathLike[str] | None,
    device: str = "auto",
    *,
    verify: bool = True,
    trust_engine: bool = False,
) -> Engine:
    """Loads a model: ours as ``.onnx`` or ``.engine``, or a checkpoint whose size has a graph.

    Args:
        verify: whether the model has to reproduce its check, where that was not seen here before.
        trust_engine: loads an ``.engine`` that this user did not build; it can run any code.

    Raises:
        ModelError: no such model, not ours, damaged, or of a size that has to be exported first.
        DeviceError: the device is not there, or does not reproduce the model's check.
        MissingExtra: no ONNX Runtime is installed.
    """
    if model is not None and Path(model).suffix == ".engine":
        return _open_tensorrt(_model_path(model), device, verify, trust_engine)
    if _is_checkpoint(model):
        _model_path(model)  # a name that is mistyped is said before a device that is not there
        device = str(choose(device, BACKENDS))
    # On a card the Fourier transforms are products too, and only audio crosses the bus.
    loaded = _load(model, io="spectrum" if device == "cpu" else "waveform")
    if loaded.file.manifest.streaming:
        return StepsAsEngine(_step_engine(loaded, device, verify))
    engine = _whole_engine(loaded, device)
    if verify:
        _require_verdict(engine, loaded)
    return engine


def _whole_engine(loaded: Readable, device: str) -> OrtEngine:
    if loaded.manifest.precision == "fp32":
        return OrtEngine(loaded.file, device, loaded.weights, loaded.manifest)

    def in_float32(weights: Mapping[str, Audio]) -> Engine:
        sha256 = loaded.manifest.checkpoint_sha256 or ""
        graph = find_graph(Checkpoint(weights, {}, sha256, loaded.manifest.name))
        return OrtEngine(graph, engine.device, weights, _widened_manifest(loaded.manifest, graph))

    engine = ReducedPrecisionOrtEngine(loaded.file, device, loaded.manifest, in_float32)
    return engine


def _widened_manifest(manifest: Manifest, graph: OnnxFile) -> Manifest:
    """What a model is whose weights were poured into a shipped graph."""
    kept = {"precision": "fp32", "weights": "fp32", "check": None}
    return manifest.replace(io=graph.manifest.io, target=graph.manifest.target, **kept)


def _open_tensorrt(path: Path, device: str, verify: bool, trust_engine: bool) -> Engine:
    # Here, since nothing else needs TensorRT.
    from bsmamba2.engines.tensorrt_engine import TensorRtEngine

    file = read_engine(path)
    engine = TensorRtEngine(file, device, trust_engine)
    if verify:
        about = {"model": file.sha256, file.key.backend: file.key.version}
        if file.key.target == "tensorrt-plugin":  # then it runs kernels that are not in it
            about["cuda_kernels"] = cuda.kernels_version()
        require_verdict(engine, about)
    return engine


def open_step_engine(
    model: str | os.PathLike[str] | None, device: str = "auto", *, verify: bool = True
) -> StepEngine:
    """Loads a model for a stream: an ``.onnx`` exported with ``--streaming``, or a checkpoint.

    Args:
        verify: as of :func:`open_engine`.

    Raises:
        As :func:`open_engine`.
    """
    return _step_engine(_load(model, streaming=True), device, verify)


def _step_engine(loaded: Readable, device: str, verify: bool) -> StepEngine:
    steps = StepEngine(loaded.file, device, loaded.weights, loaded.manifest)
    if verify:
        _require_verdict(SteppedEngine(steps, CHECK_STEPS), loaded)
    return steps


def _require_verdict(engine: Engine, loaded: Readable) -> None:
    if loaded.manifest.check is not None:  # the hash of a large file takes its time
        require_verdict(engine, {"model": loaded.sha256, **software()})


def checkable(
    model: str | os.PathLike[str] | None, device: str = "auto"
) -> Iterator[tuple[str, Engine]]:
    """Every way in which a model runs, ``whole chunks`` and ``a stream``, as an unverified engine
    that :func:`bsmamba2.models.check.reproduce` takes.

    Raises:
        As :func:`open_engine`.
    """
    streaming = describe(model).streaming
    if not streaming:
        yield "whole chunks", open_engine(model, device, verify=False)
    if streaming or _is_checkpoint(model):
        yield "a stream", SteppedEngine(open_step_engine(model, device, verify=False), CHECK_STEPS)


def add_checks(
    model: str | os.PathLike[str] | None,
    report: Callable[[str], None] = lambda _: None,
    folder: Path | None = None,
) -> None:
    """Makes the checks of a checkpoint, which carries none: by plain operators, on the CPU, once.

    One of whole chunks and one of a stream. They are kept in this user's cache, and every device
    has to reproduce them from then on. What was exported carries its own, and is left alone.

    Args:
        report: told each check that is about to be made, for a person.
        folder: where they are kept in place of the cache.

    Raises:
        As :func:`open_engine`; ModelError too where the weights give no finite output.
    """
    for streaming in (False, True) if _is_checkpoint(model) else ():
        loaded = _load(model, streaming=streaming)
        if loaded.manifest.check is not None and folder is None:
            continue
        report(f"making the check of {'a stream' if streaming else 'whole chunks'}")
        given = loaded.file, "cpu", loaded.weights, loaded.manifest
        engine: Engine
        if streaming:
            engine = SteppedEngine(StepEngine(*given, kernel=False), CHECK_STEPS)
        else:
            engine = OrtEngine(*given, kernel=False)
        check = make_check(engine)
        if not np.isfinite(check.expected).all():
            raise ModelError(f"{loaded.manifest.name} makes sound that is not finite: get it again")
        if not keep_check(loaded.manifest, check, folder):
            mend = "make it writable" if folder else "set BSMAMBA2_CACHE to a folder that is"
            raise ModelError(
                f"the check of {loaded.manifest.name} cannot be written to "
                f"{folder or cache_folder()}: {mend}"
            )


def describe(model: str | os.PathLike[str] | None) -> Manifest:
    """A model's manifest, without loading it into an engine; None for the shipped one.

    Raises:
        ModelError: as :func:`open_engine`.
    """
    path = _model_path(model)
    if path.suffix == ".engine":
        return read_engine(path).manifest
    if path.suffix == ".onnx":
        return read_onnx(path).manifest
    checkpoint = read_checkpoint(path)
    manifest = poured_manifest(find_graph(checkpoint).manifest, checkpoint)
    return manifest.replace(check=find_check(manifest))


def read_model(model: str | os.PathLike[str]) -> Readable:
    """A model's file and weights, for whoever makes another engine of it.

    Raises:
        ModelError: as :func:`open_engine`.
    """
    return _load(model)


@cache
def shipped_graphs() -> tuple[OnnxFile, ...]:
    """The graphs without weights that come with the package, three a size: for chunks as spectra
    and as audio, and for the steps of a stream."""
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
    """The shipped graph whose initialisers are this checkpoint's tensors.

    Args:
        streaming: the one for the steps of a stream, in place of the one for whole chunks.
        io: what the one for whole chunks takes, ``spectrum`` or ``waveform``.

    Raises:
        ModelError: none is; the message names what differs from the nearest one.
    """
    shapes = {name: tensor.shape for name, tensor in checkpoint.tensors.items()}

    def differences(graph: OnnxFile) -> int:
        wanted = graph.manifest.initialisers
        return sum(shapes.get(key) != shape for key, shape in wanted.items()) + len(
            shapes.keys() - wanted.keys()
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
            f"{checkpoint.name} is of a size that has no ready graph (there are {sizes}); make one "
            'with pip install "bsmamba2[export]" and bsmamba2 export CHECKPOINT -o model.onnx'
        )
    match(checkpoint.tensors, nearest.manifest.initialisers, checkpoint.name)
    return nearest


def poured_manifest(graph: Manifest, checkpoint: Checkpoint) -> Manifest:
    """The graph's manifest, now of this checkpoint: its name, its hash, its lengths."""
    changes: dict[str, Any] = {
        "name": printable(checkpoint.name),
        "checkpoint_sha256": checkpoint.sha256,
    }
    if LICENCE_KEY in checkpoint.metadata:
        changes["licence"] = printable(checkpoint.metadata[LICENCE_KEY])
    if CONFIG_KEY in checkpoint.metadata:
        try:
            stored = json.loads(checkpoint.metadata[CONFIG_KEY])
            changes |= _lengths(stored)
        except (ValueError, TypeError, KeyError, ArithmeticError, RecursionError, AttributeError):
            raise ModelError(f"the sizes stored in {checkpoint.name} are damaged") from None
        if len(changes["stems"]) != len(graph.stems):
            raise ModelError(
                f"{checkpoint.name} names {len(changes['stems'])} stems, but its weights are of "
                f"{len(graph.stems)}: it is damaged"
            )
    return graph.replace(**changes)


def _load(
    model: str | os.PathLike[str] | None, *, streaming: bool = False, io: str = "spectrum"
) -> Readable:
    """What is named; a checkpoint in the shipped graph of that form."""
    path = _model_path(model)
    if path.suffix == ".onnx":
        file = read_onnx(path)
        return Readable(file, file.manifest)
    if path.suffix == ".engine":
        raise ModelError(f"{path} is an engine already: give the model that it was built of")
    checkpoint = read_checkpoint(path)
    registry.require_published(path, checkpoint.sha256)
    graph = find_graph(checkpoint, streaming=streaming, io=io)
    manifest = poured_manifest(graph.manifest, checkpoint)
    if io == "waveform" and manifest.hop != graph.manifest.hop:  # such a graph has its own hop
        graph, io = find_graph(checkpoint), "spectrum"
        manifest = poured_manifest(graph.manifest, checkpoint)
    manifest = manifest.replace(check=find_check(manifest))
    weights = checkpoint.tensors
    if io == "waveform":
        weights = {**weights, **fourier.matrices(manifest.n_fft, manifest.hop)}
    return Readable(graph, manifest, weights)


def _model_path(model: str | os.PathLike[str] | None) -> Path:
    model = model or None  # an empty name is none
    named = registry.find_path(registry.DEFAULT if model is None else os.fspath(model))
    if named is not None:
        return named
    if model is None:
        raise ModelError(f"no model was named, and none came with this copy; {_how_to_get_one()}")
    path = Path(model)
    known = (".onnx", ".engine", *CHECKPOINT_SUFFIXES)
    if not os.path.exists(path):  # noqa: PTH110 - Path's raises where a name is too long
        shown = printable(repr(str(model)))
        if path.suffix in known or len(path.parts) > 1:
            raise ModelError(f"there is no model file {shown}: check its name and folder")
        near = registry.hint(path.name) or _how_to_get_one()
        raise ModelError(f"no model is called {shown}; {near}")
    if path.suffix not in known:
        raise ModelError(f"model must be a file in one of {', '.join(known)}; got {str(path)!r}")
    return path


def _is_checkpoint(model: str | os.PathLike[str] | None) -> bool:
    """Whether it has no graph of its own; a name, or none, stands for one too."""
    return Path(model or registry.DEFAULT).suffix not in (".onnx", ".engine")


def _how_to_get_one() -> str:
    names = " or ".join(
        f"{model.name} (once: bsmamba2 models fetch {model.name})" for model in registry.PUBLISHED
    )
    return f"name one with --model (model=): {names}, a checkpoint, or an .onnx of bsmamba2 export"


def _lengths(stored: Mapping[str, Any]) -> dict[str, Any]:
    """What the weights' shapes do not tell: a graph from spectrum to spectrum fits any of them."""
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
