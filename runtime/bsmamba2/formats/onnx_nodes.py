"""Bounds the work of an untrusted ONNX graph before ONNX Runtime loads it.

A loop may have no end, and a function that calls another twice, which calls another twice, has
more operators than memory. A sparse tensor is stored as a few values and becomes an array of any
size. An export of bsmamba2 has none of these: no operator contains a graph, with each function
counted wherever it is called there are a few thousand operators, and no tensor is sparse.

Field numbers: onnx/onnx.proto of ONNX 1.x; they never change.
"""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from bsmamba2.errors import ModelError, printable
from bsmamba2.files.regular_file import open_regular
from bsmamba2.formats.protobuf import MappedFile, fields, text

MAX_OPERATORS = 20_000
"""ONNX Runtime takes about 6 s to load so many; the largest shipped graph has 8,009."""

_MODEL_GRAPH, _MODEL_FUNCTION = 7, 25
_GRAPH_NODE, _GRAPH_SPARSE = 1, 15
_FUNCTION_NAME, _FUNCTION_NODE, _FUNCTION_DOMAIN, _FUNCTION_OVERLOAD = 1, 7, 10, 13
_NODE_OPERATOR, _NODE_ATTRIBUTE, _NODE_DOMAIN, _NODE_OVERLOAD = 4, 5, 7, 8
_ATTRIBUTE_GRAPHS = (6, 11)
_ATTRIBUTE_SPARSE = (22, 23)

_Name: TypeAlias = tuple[str, str, str]
"""Domain, name and overload of an operator."""


def require_bounded(path: Path) -> None:
    """Requires a graph whose work is bounded by its operators, and few enough of these.

    Args:
        path: an ONNX file that :func:`bsmamba2.formats.onnx_file.read_onnx` has read.

    Raises:
        ModelError: an operator contains a graph, a function calls itself, there are too many
            operators, or a tensor is sparse.
    """
    with open_regular(path) as file, MappedFile(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        graph: Counter[_Name] = Counter()
        functions: dict[_Name, Counter[_Name]] = {}
        for number, field in fields(data, range(len(data))):
            if number == _MODEL_GRAPH:
                graph += _calls(data, field, _GRAPH_NODE, path)
            elif number == _MODEL_FUNCTION:
                name = _name(data, field, _FUNCTION_DOMAIN, _FUNCTION_NAME, _FUNCTION_OVERLOAD)
                functions[name] = _calls(data, field, _FUNCTION_NODE, path)
    if _total(graph, functions, path) > MAX_OPERATORS:
        raise ModelError(
            f"{path} has more than {MAX_OPERATORS:,} operators, with its functions counted at each "
            "call, and is refused: export a smaller model"
        )


def _calls(data: MappedFile, message: range, node: int, path: Path) -> Counter[_Name]:
    """Returns how often a graph or a function calls each operator."""
    calls: Counter[_Name] = Counter()
    for number, field in fields(data, message):
        if number == _GRAPH_SPARSE and node == _GRAPH_NODE:
            raise _sparse(path)
        if number == node:
            name = _name(data, field, _NODE_DOMAIN, _NODE_OPERATOR, _NODE_OVERLOAD)
            _require_plain_attributes(data, field, name, path)
            calls[name] += 1
    return calls


def _name(data: MappedFile, message: range, domain: int, name: int, overload: int) -> _Name:
    parts = dict(fields(data, message))
    shown = [text(data, parts[n]) if n in parts else "" for n in (domain, name, overload)]
    return shown[0], shown[1], shown[2]


def _require_plain_attributes(data: MappedFile, node: range, name: _Name, path: Path) -> None:
    for number, field in fields(data, node):
        if number == _NODE_ATTRIBUTE:
            for inner, _ in fields(data, field):
                if inner in _ATTRIBUTE_SPARSE:
                    raise _sparse(path)
                if inner in _ATTRIBUTE_GRAPHS:
                    raise ModelError(
                        f"{path} contains a loop or a branch ({printable(name[1])}), which no "
                        "export of bsmamba2 has, and is refused: export it again"
                    )


def _sparse(path: Path) -> ModelError:
    return ModelError(
        f"{path} contains a sparse tensor, which no export of bsmamba2 has, and is refused: export "
        "it again"
    )


def _total(graph: Counter[_Name], functions: Mapping[_Name, Counter[_Name]], path: Path) -> int:
    """Returns the number of operators after every call is replaced by its function's operators."""
    totals: dict[_Name, int] = {}

    def total(calls: Counter[_Name], outer: frozenset[_Name]) -> int:
        return sum(count * (1 + of(name, outer)) for name, count in calls.items())

    def of(name: _Name, outer: frozenset[_Name]) -> int:
        if name not in functions:
            return 0
        if name in outer or len(outer) > 64:
            raise ModelError(
                f"{path} has functions that call each other without end, or too deeply, and is "
                "refused: export it again"
            )
        if name not in totals:
            totals[name] = total(functions[name], outer | {name})
        return totals[name]

    return total(graph, frozenset())
