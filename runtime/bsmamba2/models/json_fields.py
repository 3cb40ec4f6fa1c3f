"""Reads values from untrusted JSON; an error has the path of the value in the document.

Example of a message: ``models[3].files[0].bytes must be an integer in 1-100; got -5``.
"""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

from bsmamba2.errors import ModelError, printable

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60
_SHORT.maxlevel = 2


@dataclass(frozen=True)
class Field:
    """A value, and its path in the document; the document itself has an empty path.

    Every method raises ModelError if the value is of another kind.
    """

    value: Any
    path: str = ""

    def fail(self, allowed: str) -> NoReturn:
        """Raises the error of this value.

        Raises:
            ModelError: always.
        """
        got = printable(_SHORT.repr(self.value))
        raise ModelError(f"{self.path or 'the document'} must be {allowed}; got {got}")

    def members(
        self, required: Iterable[str] = (), optional: Iterable[str] = (), *, owner: str = ""
    ) -> dict[str, Field]:
        """Returns the fields of an object with known names.

        Args:
            required: names that must be present.
            optional: names that may be present.
            owner: what the error calls the object, if its path is not enough.
        """
        found = self.mapping()
        known = (*required, *optional)
        for name in found:
            if name not in known:
                place = f"{self.path}: " if self.path else ""
                raise ModelError(
                    f"{place}{owner or 'the fields'} must be among {', '.join(known)}; got "
                    f"{printable(repr(name), 60)}"
                )
        for name in required:
            if name not in found:
                raise ModelError(f"{self._inside(name)} must be given")
        return found

    def mapping(self, most: int = 100) -> dict[str, Field]:
        """Returns the fields of an object with any names."""
        if not isinstance(self.value, dict) or len(self.value) > most:
            self.fail(f"an object of at most {most} fields")
        return {name: Field(item, self._inside(name)) for name, item in self.value.items()}

    def items(self, least: int, most: int) -> list[Field]:
        """Returns the elements of a list."""
        if not isinstance(self.value, list) or not least <= len(self.value) <= most:
            self.fail(f"a list of {least} to {most} elements")
        return [Field(item, f"{self.path}[{n}]") for n, item in enumerate(self.value)]

    def text(self, most: int) -> str:
        """Returns a printable line that is not empty."""
        value = self.value
        if not isinstance(value, str) or not value.isprintable():
            self.fail("one printable line")
        if not 1 <= len(value) <= most or value != value.strip():
            self.fail(f"1 to {most} characters without spaces around them")
        return value

    def match(self, pattern: re.Pattern[str], allowed: str) -> str:
        """Returns a text that matches a pattern as a whole."""
        if not isinstance(self.value, str) or not pattern.fullmatch(self.value):
            self.fail(allowed)
        return self.value

    def choice(self, choices: Iterable[str]) -> str:
        """Returns one of a few words."""
        if not isinstance(self.value, str) or self.value not in choices:
            self.fail(f"one of {', '.join(choices)}")
        return self.value

    def integer(self, low: int, high: int) -> int:
        """Returns a whole number in a range."""
        if type(self.value) is not int or not low <= self.value <= high:
            self.fail(f"{low}" if low == high else f"an integer in {low}-{high}")
        return self.value

    def number(self, low: float, high: float) -> float:
        """Returns a finite number in a range."""
        value = self.value
        if type(value) not in (int, float) or not low <= value <= high or not math.isfinite(value):
            self.fail(f"a number in {low:g} to {high:g}")
        return float(value)

    def boolean(self) -> bool:
        """Returns true or false."""
        if not isinstance(self.value, bool):
            self.fail("true or false")
        return self.value

    def _inside(self, name: str) -> str:
        shown = printable(name, 60)
        return f"{self.path}.{shown}" if self.path else shown
