"""Opens shared libraries: the one place that calls the system's loader."""

from __future__ import annotations

import ctypes
from pathlib import Path

__all__ = ["missing_library", "open_library"]


def open_library(*names: str) -> ctypes.CDLL | None:
    """The first of these libraries that can be loaded, by name or by path; None if none can."""
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def missing_library(path: Path) -> str | None:
    """The name of a library that this one needs and that cannot be found; None if all are there.

    Works only on Linux: elsewhere the loader does not report the name.
    """
    try:
        ctypes.CDLL(str(path))
    except OSError as error:
        name, _, reason = str(error).partition(": ")
        if reason.startswith("cannot open shared object file") and name != str(path):
            return name
    return None
