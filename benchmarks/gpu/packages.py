"""Importing the modules of a package without the imports of its ``__init__``."""

from __future__ import annotations

import importlib.util
import sys


def skip_init(package: str) -> None:
    """Makes the package's modules importable without running its ``__init__``.

    Raises:
        ModuleNotFoundError: there is no such package.
    """
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        del sys.modules[name]
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    sys.modules[package] = importlib.util.module_from_spec(spec)
