"""Reads the yaml files of Music-Source-Separation-Training (MSST), which are untrusted.

An alias repeats a part of the document, so a few lines can stand for more values than memory holds.
The document is measured with every alias written out before any value is created.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from bsmamba2.errors import ModelError, first_line, printable
from bsmamba2.files.regular_file import read_regular

MAX_BYTES = 1 << 15
"""The published files have 2 to 4 KB."""

MAX_EXPANDED = 1 << 18
"""The most characters and nodes with every alias written out."""


class _TupleLoader(yaml.SafeLoader):
    """Safe YAML with the tuples that MSST's files contain."""


def _tuple(loader: yaml.SafeLoader, node: yaml.SequenceNode) -> tuple[Any, ...]:
    return tuple(loader.construct_sequence(node))


_TupleLoader.add_constructor("tag:yaml.org,2002:python/tuple", _tuple)


def read_yaml(path: Path) -> Mapping[str, Any]:
    """Reads a yaml file as plain data.

    Raises:
        ModelError: the file cannot be read, is not yaml, is too large, or contains objects other
            than tuples.
    """
    try:
        document = _load(read_regular(path, MAX_BYTES).decode("utf-8"))
    except (
        OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError,
        RecursionError, yaml.YAMLError,
    ) as error:  # fmt: skip
        # The constructors of dates, numbers and keys raise these for values they do not expect.
        text = first_line(error) if isinstance(error, OSError) else str(error)
        reason = printable(" ".join(text.split()))
        raise ModelError(f"config must be a readable yaml file; got {path}: {reason}") from None
    if not isinstance(document, Mapping):
        kind = type(document).__name__
        raise ModelError(f"config must be a yaml mapping; got a {kind} in {path}")
    return document


def _load(text: str) -> Any:
    loader = _TupleLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _expanded(node, {}) > MAX_EXPANDED:
            raise ValueError("its aliases stand for too many values")
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _expanded(node: yaml.Node, sizes: dict[int, int]) -> int:
    """Returns the characters and nodes of a node with every alias written out.

    Args:
        sizes: the result for each node that was measured, by its identity.
    """
    known = sizes.get(id(node))
    if known is not None:
        return known
    sizes[id(node)] = MAX_EXPANDED + 1  # the size of a node that contains itself
    if isinstance(node, yaml.ScalarNode):
        size = len(node.value)
    elif isinstance(node, yaml.MappingNode):
        size = sum(_expanded(part, sizes) for pair in node.value for part in pair)
    else:
        size = sum(_expanded(part, sizes) for part in node.value)
    sizes[id(node)] = size + 1
    return size + 1
