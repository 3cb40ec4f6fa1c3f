"""Checks an ONNX file before it is loaded, without the onnx package.

This module reads three things: the metadata, which holds the manifest; the names of the
initialisers; and the locations of initialisers outside the file, because an untrusted file must not
refer to files outside its folder. Weights inside the file are skipped, never copied. Other tensors
(attributes, functions) and links are left to ONNX Runtime, which refuses data outside the model's
folder; a test checks that.

Field numbers: onnx/onnx.proto of ONNX 1.x; they never change.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from bsmamba2.errors import ModelError, first_line, printable
from bsmamba2.files.regular_file import open_regular
from bsmamba2.formats.manifest import METADATA_KEY, Manifest
from bsmamba2.formats.protobuf import MappedFile, fields, text

WEIGHTLESS = "weights"
"""The location of weights in a graph without weights, until a checkpoint provides them."""

_MODEL_GRAPH, _MODEL_METADATA = 7, 14
_GRAPH_INITIALISER = 5
_TENSOR_NAME, _TENSOR_RAW, _TENSOR_EXTERNAL = 8, 9, 13
_ENTRY_KEY, _ENTRY_VALUE = 1, 2


@dataclass(frozen=True)
class OnnxFile:
    """An ONNX file exported by bsmamba2, checked but not loaded."""

    path: Path
    manifest: Manifest
    missing_weights: tuple[str, ...]
    """The initialisers to load from a checkpoint; empty in a complete model."""
    data: tuple[Path, ...] = ()
    """The files next to it that hold its weights; empty if the file contains them."""


def read_onnx(path: Path) -> OnnxFile:
    """Reads a model's manifest and checks which files it would load data from.

    Raises:
        ModelError: the file is not an ONNX file, is not from bsmamba2 or from a later version, or
            refers to files outside its folder.
    """
    try:
        with (
            open_regular(path) as file,
            MappedFile(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            metadata, locations = _scan_model(data)
    except ModelError:
        raise ModelError(f"{path} is not an ONNX file, or is damaged: export it again") from None
    except (OSError, ValueError) as error:  # mmap refuses an empty file with ValueError
        cause = first_line(error) if isinstance(error, OSError) else "it is empty"
        raise ModelError(f"the model {path} cannot be read ({cause}): check its name") from None
    if METADATA_KEY not in metadata:
        raise ModelError(
            f"{path} is not a model of bsmamba2: it has no {METADATA_KEY} in its metadata; "
            "create one with bsmamba2 export"
        )
    external = sorted({str(at) for _, at in locations if at not in (None, WEIGHTLESS)})
    for location in external:
        target = PurePosixPath(location)
        outside = target.is_absolute() or ".." in target.parts or not target.name
        if outside or "\\" in location or not location.isprintable():
            raise ModelError(
                f"{path} refers to data outside its folder ({printable(location)}) and is refused: "
                "export it again"
            )
    missing = tuple(name for name, location in locations if location == WEIGHTLESS)
    data_files = tuple(path.parent / location for location in external)
    return OnnxFile(path, Manifest.from_json(metadata[METADATA_KEY]), missing, data_files)


def initialisers(data: MappedFile) -> Iterator[tuple[str, range]]:
    """Yields each initialiser in the file with the range of its bytes.

    Raises:
        ModelError: the data is not an ONNX file, or is damaged.
    """
    for number, graph in fields(data, range(len(data))):
        if number == _MODEL_GRAPH:
            for inner, tensor in fields(data, graph):
                if inner == _GRAPH_INITIALISER:
                    parts = dict(fields(data, tensor))
                    if _TENSOR_NAME in parts and _TENSOR_RAW in parts:
                        yield text(data, parts[_TENSOR_NAME]), parts[_TENSOR_RAW]


def _scan_model(data: MappedFile) -> tuple[dict[str, str], list[tuple[str, str | None]]]:
    """Returns the metadata, and each initialiser's location: None inside the file."""
    metadata: dict[str, str] = {}
    locations: list[tuple[str, str | None]] = []
    for number, field in fields(data, range(len(data))):
        if number == _MODEL_METADATA:
            key, value = _entry(data, field)
            metadata[key] = value
        elif number == _MODEL_GRAPH:
            for inner, tensor in fields(data, field):
                if inner == _GRAPH_INITIALISER:
                    locations.append(_tensor(data, tensor))
    return metadata, locations


def _tensor(data: MappedFile, message: range) -> tuple[str, str | None]:
    name, location = "", None
    for number, field in fields(data, message):
        if number == _TENSOR_NAME:
            name = text(data, field)
        elif number == _TENSOR_EXTERNAL:
            key, value = _entry(data, field)
            location = value if key == "location" else location
    return name, location


def _entry(data: MappedFile, message: range) -> tuple[str, str]:
    parts = {number: text(data, field) for number, field in fields(data, message)}
    return parts.get(_ENTRY_KEY, ""), parts.get(_ENTRY_VALUE, "")
