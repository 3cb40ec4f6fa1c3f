"""Finds the library of native kernels, if this installation has one.

Without it a model runs with plain operators, with the same results but several times slower.
"""

from __future__ import annotations

import ctypes
import os
from importlib.util import find_spec
from pathlib import Path

from bsmamba2.devices.libraries import open_library

__all__ = ["instruction_set", "library"]


def library() -> Path | None:
    """Returns the library's path, for ``SessionOptions.register_custom_ops_library``.

    Returns None if the package was installed without a compiler, or if ``BSMAMBA2_KERNEL=off`` is
    set.
    """
    if os.environ.get("BSMAMBA2_KERNEL") == "off":
        return None
    spec = find_spec("bsmamba2")
    # An editable install has two folders: one with the sources, one with the built files.
    folders = spec.submodule_search_locations if spec else None
    for folder in folders or ():
        for name in ("libbsmamba2_ort.so", "libbsmamba2_ort.dylib"):
            if (found := Path(folder, "native", name)).is_file():
                return found
    return None


def instruction_set() -> str | None:
    """Returns the instruction set that the kernels use, e.g. ``avx2``.

    Returns None if the library cannot be loaded, or if ``BSMAMBA2_ISA`` names an instruction set
    that this processor lacks.
    """
    path = library()
    native = open_library(str(path)) if path else None
    if native is None or not hasattr(native, "bsmamba2_isa"):
        return None
    native.bsmamba2_isa.restype = ctypes.c_char_p
    return str(native.bsmamba2_isa().decode("ascii")) or None
