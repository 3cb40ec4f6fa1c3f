"""Opens shared libraries: the one place that calls the system's loader."""

from __future__ import annotations

import ctypes

__all__ = ["open_library"]


def open_library(*names: str) -> ctypes.CDLL | None:
    """The first of these libraries that can be loaded, by name or by path; None if none can."""
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None
