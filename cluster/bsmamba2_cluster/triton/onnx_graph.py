"""Reads the inputs and outputs of an ONNX graph, and writes a checkpoint's weights into one.

A shipped graph names its weights without storing them. The runtime gives them to ONNX Runtime in
memory; a server loads a file, so here they become part of the file. Neither needs the onnx package.

Field numbers: onnx/onnx.proto of ONNX 1.x; they never change.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bsmamba2.audio.array import Audio
from bsmamba2.errors import ModelError
from bsmamba2.formats.manifest import METADATA_KEY
from bsmamba2.formats.protobuf import MappedFile, fields, text, varint
from bsmamba2.models.graph import Graph

MAX_BYTES = (1 << 31) - 1
"""The largest message of protocol buffers, and so the largest ONNX file without other files."""

_MODEL_GRAPH, _MODEL_METADATA = 7, 14
_GRAPH_INITIALISER, _GRAPH_INPUT, _GRAPH_OUTPUT = 5, 11, 12
_TENSOR_NAME, _TENSOR_RAW, _TENSOR_EXTERNAL, _TENSOR_LOCATION = 8, 9, 13, 14
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_VALUE_NAME, _VALUE_TYPE = 1, 2
_TYPE_TENSOR, _TENSOR_SHAPE, _SHAPE_DIMENSION, _DIMENSION_SIZE = 1, 2, 1, 1

_LENGTH_DELIMITED = 2


@dataclass(frozen=True)
class Tensor:
    """An input or an output of a graph."""

    name: str
    shape: tuple[int, ...]
    """−1 where the graph leaves the size open."""


def read_tensors(path: Path) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Returns the inputs and the outputs of an ONNX graph.

    Raises:
        ModelError: the file is damaged.
    """
    with path.open("rb") as file, MappedFile(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        (graph,) = [field for n, field in fields(data, range(len(data))) if n == _MODEL_GRAPH]
        found = list(fields(data, graph))
        inputs = tuple(_tensor(data, field) for n, field in found if n == _GRAPH_INPUT)
        outputs = tuple(_tensor(data, field) for n, field in found if n == _GRAPH_OUTPUT)
    return inputs, outputs


def complete_onnx(graph: Graph) -> bytes:
    """Returns the ONNX file of a graph with its weights and its manifest in it.

    Raises:
        ModelError: the weights lie in other files, or exceed what one file can hold.
    """
    if graph.file.data:
        raise ModelError(
            f"{graph.file.path.name} must contain its weights; got one whose weights are in "
            f"{graph.file.data[0].name}: use the checkpoint that it was exported from"
        )
    if graph.weights is None:
        return graph.file.path.read_bytes()
    weights = {name: graph.weights[name] for name in graph.file.missing_weights}
    total = sum(values.nbytes for values in weights.values())
    if total > MAX_BYTES * 0.99:
        raise ModelError(
            f"the weights of {graph.manifest.name} must be at most 2 GiB; got {total / 2**30:.1f} "
            "GiB: export the model with weights='fp16'"
        )

    with (
        graph.file.path.open("rb") as file,
        MappedFile(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):

        def change_tensor(number: int, field: range) -> bytes | None:
            if number != _GRAPH_INITIALISER:
                return None
            name = text(data, dict(fields(data, field))[_TENSOR_NAME])
            return _field(number, _filled(data, field, weights[name])) if name in weights else None

        def change(number: int, field: range) -> bytes | None:
            if number == _MODEL_GRAPH:
                return _field(number, _rewritten(data, field, change_tensor))
            if number != _MODEL_METADATA or _metadata_key(data, field) != METADATA_KEY:
                return None
            pair = (_ENTRY_KEY, METADATA_KEY), (_ENTRY_VALUE, graph.manifest.to_json())
            return _field(number, b"".join(_field(n, value.encode()) for n, value in pair))

        return _rewritten(data, range(len(data)), change)


def _filled(data: MappedFile, tensor: range, values: Audio) -> bytes:
    """Returns a tensor whose values are in the file instead of elsewhere."""

    def without_external(number: int, field: range) -> bytes | None:
        return b"" if number == _TENSOR_EXTERNAL else None

    kept = _rewritten(data, tensor, without_external)
    raw = _field(_TENSOR_RAW, np.ascontiguousarray(values, "<f4").tobytes())
    # The last value of a field counts: 0 is the default location, inside the file.
    return kept + raw + _number(_TENSOR_LOCATION << 3) + _number(0)


def _rewritten(
    data: MappedFile, message: range, change: Callable[[int, range], bytes | None]
) -> bytes:
    """Returns a message with some fields replaced.

    Args:
        change: takes the number and the content of a field; returns the bytes of the fields that
            replace it, or None to keep it.
    """
    parts: list[bytes] = []
    at = message.start
    for number, field in fields(data, message):
        replacement = change(number, field)
        if replacement is None:
            continue
        header = _header(number, len(field))
        start = field.start - len(header)
        if data[start : field.start] != header:
            raise ModelError("the graph is not laid out as exports are: export the model again")
        parts += [data[at:start], replacement]
        at = field.stop
    return b"".join([*parts, data[at : message.stop]])


def _field(number: int, content: bytes) -> bytes:
    return _header(number, len(content)) + content


def _header(number: int, length: int) -> bytes:
    """Returns what stands before a field's content, in the shortest form, as writers do."""
    return _number(number << 3 | _LENGTH_DELIMITED) + _number(length)


def _number(value: int) -> bytes:
    """Returns a base-128 number."""
    digits = bytearray()
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*digits, value])


def _metadata_key(data: MappedFile, entry: range) -> str:
    return text(data, dict(fields(data, entry))[_ENTRY_KEY])


def _tensor(data: MappedFile, value: range) -> Tensor:
    parts = dict(fields(data, value))
    kind = dict(fields(data, parts[_VALUE_TYPE]))[_TYPE_TENSOR]
    shape = dict(fields(data, kind)).get(_TENSOR_SHAPE, range(0))
    sizes = [_size(data, field) for n, field in fields(data, shape) if n == _SHAPE_DIMENSION]
    return Tensor(text(data, parts[_VALUE_NAME]), tuple(sizes))


def _size(data: MappedFile, dimension: range) -> int:
    """Returns the size that a dimension states, −1 if it has only a name."""
    if dimension and data[dimension.start] == _DIMENSION_SIZE << 3:
        return varint(data, dimension.start + 1, dimension.stop)[0]
    return -1
