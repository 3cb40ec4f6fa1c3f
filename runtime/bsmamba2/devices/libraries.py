"""Opens shared libraries with the system's loader."""

from __future__ import annotations

import ctypes
from pathlib import Path

__all__ = ["missing_library", "open_library"]


def open_library(*names: str) -> ctypes.CDLL | None:
    """Loads the first of these libraries that it can, by name or by path; returns None if none."""
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def missing_library(path: Path) -> str | None:
    """Returns the name of a library that this one needs and that is missing; None if all are found.

    Works only on Linux: elsewhere the loader does not report the name.
    """
    try:
        ctypes.CDLL(str(path))
    except OSError as error:
        name, _, reason = str(error).partition(": ")
        if reason.startswith("cannot open shared object file") and name != str(path):
            return name
    return None
