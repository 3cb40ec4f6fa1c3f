"""Writes a model repository for NVIDIA Triton Inference Server.

repository/
├── vocals/                 whole chunks
│   ├── config.pbtxt
│   ├── manifest.json
│   └── 1/model.onnx        or model.plan, from a TensorRT engine
└── vocals_streaming/       the steps of a stream, if the model has a graph for them
    ├── config.pbtxt
    ├── manifest.json
    └── 1/model.onnx
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path, PurePosixPath

from bsmamba2.devices import kernel
from bsmamba2.errors import ModelError, first_line, printable
from bsmamba2.files.part_file import write_atomically
from bsmamba2.formats.engine_file import read_engine
from bsmamba2.formats.manifest import Manifest
from bsmamba2.models.graph import Graph
from bsmamba2.models.model import Model
from bsmamba2.models.model_file import find_model_path
from bsmamba2.models.open_model import open_model
from bsmamba2_cluster.triton.config import STREAMING_PARAMETER, ModelConfig
from bsmamba2_cluster.triton.onnx_graph import Tensor, complete_onnx, read_tensors

VERSION = "1"
"""The folder of the model's version; a server loads the highest."""

DEFAULT_BATCH = 4
MAX_BATCH = 64


def write_repository(
    model: str | os.PathLike[str] | None,
    repository: str | os.PathLike[str],
    *,
    name: str | None = None,
    batch: int = DEFAULT_BATCH,
    kernel_at: str | None = None,
    config: str | os.PathLike[str] | None = None,
    trust_engine: bool = False,
    overwrite: bool = False,
) -> tuple[Path, ...]:
    """Writes a model into a repository, which may already have others.

    A checkpoint or an ``.onnx`` runs in Triton's ONNX Runtime backend; an ``.engine`` built with
    ``--backend tensorrt`` becomes a plan for its TensorRT backend. A checkpoint of BSMamba2 gives
    two models, the second for streams.

    Args:
        model: a name from ``bsmamba2 models``, or the path of a model. None: the shipped model.
        repository: the folder; created if it does not exist.
        name: the model's name on the server. Default: its own.
        batch: the most chunks that the server joins to one run, 1 to 64. Memory grows with it.
        kernel_at: the absolute path of the repository on the server. If given, the library with
            the kernels for a CPU is copied into the model's folder and loaded from there. None:
            plain operators, which need no library, run on GPUs too, and are several times slower
            on a CPU.
        config: MSST's yaml of a checkpoint.
        trust_engine: whether to use an engine that this user did not build; it can run any code.
        overwrite: whether to replace models of the same names.

    Returns:
        The folder of each model.

    Raises:
        ModelError: the model or an argument cannot be used, or the folder cannot be written.
    """
    if not 1 <= batch <= MAX_BATCH:
        raise ModelError(f"batch must be in [1, {MAX_BATCH}]; got {batch}")
    if kernel_at is not None and not PurePosixPath(kernel_at).is_absolute():
        raise ModelError(
            f"kernel_at must be the absolute path of the repository on the server; got "
            f"{kernel_at!r}: give e.g. /models"
        )
    path = find_model_path(model)
    folder = Path(repository)
    if path.suffix == ".engine":
        if kernel_at is not None:
            raise ModelError(
                "kernel_at must be left out with an engine, which has its own kernels; got "
                f"{kernel_at!r}"
            )
        return (_write_plan(path, folder, name, trust_engine, overwrite),)
    opened = open_model(path, config=config)
    graphs = _graphs(opened)
    names = _names(name or opened.manifest.name, graphs)
    for one in names:
        _require_new(folder / one, overwrite)
    streaming = {STREAMING_PARAMETER: names[-1]} if len(graphs) == 2 else {}
    written = []
    for one, graph in zip(names, graphs, strict=True):
        more = {} if graph.manifest.streaming else streaming
        written.append(_write_onnx(graph, folder / one, batch, kernel_at, more))
    return tuple(written)


def _graphs(model: Model) -> list[Graph]:
    """Returns the graph for whole chunks and the one for steps, or the only one that there is.

    Audio is a fifth of its spectrum, so the graph for audio is preferred.
    """
    first = model.graph(io="waveform")
    if model.can_stream and not first.manifest.streaming:
        return [first, model.graph(streaming=True)]
    return [first]


def _names(name: str, graphs: list[Graph]) -> list[str]:
    plain = _server_name(name)
    return [plain, f"{plain}_streaming"][: len(graphs)]


def _server_name(name: str) -> str:
    """Returns a name that can be a folder and a part of a URL."""
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip("._-")[:100]
    if not plain:
        raise ModelError(
            f"name must contain letters or digits; got {printable(repr(name))}: give another name"
        )
    return plain


def _write_onnx(
    graph: Graph, folder: Path, batch: int, kernel_at: str | None, parameters: dict[str, str]
) -> Path:
    content = complete_onnx(graph)
    # The server's own check is of the graph's sizes, so they are read and not assumed.
    inputs, outputs = read_tensors(graph.file.path)
    library = kernel.library() if kernel_at is not None else None
    if kernel_at is not None and library is None:
        raise ModelError(
            "kernel_at must be left out where the native library is not installed: see bsmamba2 "
            "doctor"
        )
    on_server: str | None = None
    if library is not None and kernel_at is not None:
        on_server = str(PurePosixPath(kernel_at, folder.name, VERSION, library.name))
    described = ModelConfig(
        folder.name,
        graph.manifest,
        inputs,
        outputs,
        batch=batch,
        library=on_server,
        parameters=parameters,
    )
    return _write(folder, described, content, library)


def _write_plan(
    path: Path, repository: Path, name: str | None, trust_engine: bool, overwrite: bool
) -> Path:
    engine = read_engine(path)
    manifest, key = engine.manifest, engine.key
    if key.backend != "tensorrt" or key.target == "tensorrt-plugin" or manifest.io != "spectrum":
        raise ModelError(
            f"{path.name} must be an engine of tensorrt, without plugin, that takes spectra; got "
            f"{key.backend} with target {key.target} and io {manifest.io}: build it with bsmamba2 "
            "build-engine with backend='tensorrt'"
        )
    folder = repository / _server_name(name or manifest.name)
    _require_new(folder, overwrite)
    stems, sizes = len(manifest.stems), (manifest.channels, -1, manifest.bins, 2)
    described = ModelConfig(
        folder.name,
        manifest,
        [Tensor("spectrum", (-1, *sizes))],
        [Tensor("stems", (-1, stems, *sizes))],
        backend="tensorrt",
        file_name="model.plan",
        batch=key.batch,
    )
    return _write(folder, described, engine.require_trust(trust_engine))


def _require_new(folder: Path, overwrite: bool) -> None:
    if folder.exists() and not overwrite:
        raise ModelError(
            f"{folder} exists: choose another name, or allow overwriting with overwrite=True"
        )


def _write(
    folder: Path, described: ModelConfig, content: bytes, library: Path | None = None
) -> Path:
    """Writes a model's folder. The configuration comes last: without it a server that watches the
    repository does not load the model."""
    try:
        version = folder / VERSION
        version.mkdir(parents=True, exist_ok=True)
        (folder / "config.pbtxt").unlink(missing_ok=True)
        for old in version.iterdir():
            old.unlink()
        write_atomically(version / described.file_name, content)
        if library is not None:
            shutil.copyfile(library, version / library.name)
        write_atomically(folder / "manifest.json", _readable(described.manifest))
        write_atomically(folder / "config.pbtxt", described.text().encode())
    except OSError as error:
        raise ModelError(
            f"{folder} cannot be written ({first_line(error)}): choose another folder"
        ) from None
    return folder


def _readable(manifest: Manifest) -> bytes:
    return (manifest.to_json() + "\n").encode()
