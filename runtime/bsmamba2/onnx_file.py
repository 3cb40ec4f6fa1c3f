"""Reads what must be known of an ONNX file before it may be loaded, without the onnx package.

An ONNX file is a protocol buffer: fields of (number, kind, payload), nested. Three things are
wanted: the metadata, which holds the manifest; the initialisers' names; and where initialisers
that lie outside the file say they lie, because a file from a stranger must not point out of its
own folder. Weights inside the file are stepped over, never copied.

Field numbers: onnx/onnx.proto of ONNX 1.x; they never change.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from bsmamba2.errors import ModelError
from bsmamba2.manifest import METADATA_KEY, Manifest

WEIGHTLESS = "weights"
"""Where a graph without weights says that they lie: nowhere, until they are poured in."""

_MODEL_GRAPH, _MODEL_METADATA = 7, 14
_GRAPH_INITIALISER = 5
_TENSOR_NAME, _TENSOR_EXTERNAL = 8, 13
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class OnnxFile:
    """An ONNX file of ours, read but not loaded."""

    path: Path
    manifest: Manifest
    wanting: tuple[str, ...]
    """The initialisers that have to be poured in from a checkpoint; none in a whole model."""


def read_onnx(path: Path) -> OnnxFile:
    """Reads a model's manifest and checks where it would load data from.

    Raises:
        ModelError: not an ONNX file, not ours, of a later version, or pointing out of its folder.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            view = memoryview(data)
            try:
                metadata, locations = _scan_model(view)
            finally:
                view.release()
    except ModelError:
        raise ModelError(f"{path} is no ONNX file, or a damaged one: export it again") from None
    except (OSError, ValueError) as error:  # mmap refuses an empty file with ValueError
        reason = getattr(error, "strerror", None) or "it is empty"
        raise ModelError(f"the model {path} cannot be read: {reason}") from None
    if METADATA_KEY not in metadata:
        raise ModelError(
            f"{path} is not a model of bsmamba2: it has no {METADATA_KEY} in its metadata; make "
            "one with bsmamba2 export"
        )
    for location in set(locations.values()) - {None, WEIGHTLESS}:
        inside = PurePosixPath(str(location))
        if inside.is_absolute() or ".." in inside.parts or "\\" in str(location):
            raise ModelError(f"{path} wants data from outside its folder ({location!r}): refused")
    wanting = tuple(name for name, location in locations.items() if location == WEIGHTLESS)
    return OnnxFile(path, Manifest.from_json(metadata[METADATA_KEY]), wanting)


def _scan_model(view: memoryview) -> tuple[dict[str, str], dict[str, str | None]]:
    """The metadata, and each initialiser's location: None inside the file."""
    metadata: dict[str, str] = {}
    locations: dict[str, str | None] = {}
    for number, payload in _fields(view):
        if number == _MODEL_METADATA:
            key, value = _entry(payload)
            metadata[key] = value
        elif number == _MODEL_GRAPH:
            for inner, tensor in _fields(payload):
                if inner == _GRAPH_INITIALISER:
                    name, location = _tensor(tensor)
                    locations[name] = location
    return metadata, locations


def _tensor(view: memoryview) -> tuple[str, str | None]:
    name, location = "", None
    for number, payload in _fields(view):
        if number == _TENSOR_NAME:
            name = _text(payload)
        elif number == _TENSOR_EXTERNAL:
            key, value = _entry(payload)
            location = value if key == "location" else location
    return name, location


def _entry(view: memoryview) -> tuple[str, str]:
    parts = {number: _text(payload) for number, payload in _fields(view)}
    return parts.get(_ENTRY_KEY, ""), parts.get(_ENTRY_VALUE, "")


def _text(view: memoryview) -> str:
    try:
        return str(view, "utf-8")
    except UnicodeDecodeError:
        raise ModelError("text that is no UTF-8") from None


def _fields(view: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Every length-delimited field of a message; numbers are stepped over."""
    at = 0
    while at < len(view):
        key, at = _varint(view, at)
        kind = key & 7
        if kind == _BYTES:
            size, at = _varint(view, at)
            if size > len(view) - at:
                raise ModelError("a field reaches past its message")
            yield key >> 3, view[at : at + size]
            at += size
        elif kind == _VARINT:
            _, at = _varint(view, at)
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:
            raise ModelError("a field of unknown kind")


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    """A base-128 number and where it ends."""
    value = shift = 0
    while at < len(view) and shift < 64:
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ModelError("a number without an end")
