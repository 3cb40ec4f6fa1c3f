"""Makes parts of a package importable where what the whole of it needs is not installed."""

from __future__ import annotations

import importlib.util
import sys


def parts_alone(package: str) -> None:
    """From now on the package is its parts alone: its ``__init__`` is not run.

    Raises:
        ModuleNotFoundError: there is no such package.
    """
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        del sys.modules[name]
    found = importlib.util.find_spec(package)
    if found is None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    sys.modules[package] = importlib.util.module_from_spec(found)


try:
    import bsmamba2  # noqa: F401
except ModuleNotFoundError:
    # What songs are read and written with is not installed here, nor needed for most.
    parts_alone("bsmamba2")
