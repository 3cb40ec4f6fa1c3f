"""What the sizes of every network family have in common."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Protocol, Self

from bsmamba2.errors import ModelError, printable

Shapes = Mapping[str, tuple[int, ...]]
"""The shapes of a network's weights by their names in the checkpoint."""


class Sizes(Protocol):
    """The sizes of a network: a frozen dataclass that validates itself when it is built.

    All methods raise a ModelError if their argument cannot be used.
    """

    @classmethod
    def from_msst(cls, document: Mapping[str, Any]) -> Self:
        """Reads the sizes from a parsed yaml of Music-Source-Separation-Training (MSST)."""

    @classmethod
    def from_shapes(cls, shapes: Shapes) -> Self:
        """Derives the sizes from the weights; what they cannot tell has its published default."""

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Reads what :meth:`to_json` wrote."""

    def to_json(self) -> str:
        """Returns the sizes as JSON text."""

    def require_agreement(self, shapes: Shapes) -> None:
        """Requires that the weights have these sizes; the error names a size with both values."""


def numbered(keys: Mapping[str, Any], pattern: str) -> list[int]:
    """Returns 0 … n − 1, where n distinct numbers match the pattern's group in the keys."""
    numbers = {int(m.group(1)) for key in keys if (m := re.match(pattern, key))}
    return list(range(len(numbers)))


def require_agreement(stated: object, found: Mapping[str, object]) -> None:
    """Requires that sizes from a yaml are those of the weights.

    Args:
        stated: the sizes.
        found: values from the weights' shapes, by the sizes' names.

    Raises:
        ModelError: they contradict; the message names each size with both values.
    """
    contradictions = [
        f"{name} is {_shown(getattr(stated, name))} in the config and {_shown(value)} in the "
        "weights"
        for name, value in found.items()
        if getattr(stated, name) != value
    ]
    if contradictions:
        raise ModelError(f"config must describe these weights; got: {'; '.join(contradictions)}")


def _shown(value: object) -> str:
    return printable(str(value))
