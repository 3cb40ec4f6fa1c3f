"""The native kernels: where their library is, if this installation has one.

Without it a model runs by plain operators, several times slower and to the same numbers.
"""

from __future__ import annotations

import ctypes
import os
from importlib.util import find_spec
from pathlib import Path

from bsmamba2.devices.libraries import open_library

__all__ = ["instruction_set", "library"]


def library() -> Path | None:
    """The custom-op library that ``SessionOptions.register_custom_ops_library`` takes, or None.

    None where the package was installed without a compiler, and where the environment says
    ``BSMAMBA2_KERNEL=off``.
    """
    if os.environ.get("BSMAMBA2_KERNEL") == "off":
        return None
    spec = find_spec("bsmamba2")
    # An editable install keeps what was built apart from the sources: the package has two folders.
    folders = spec.submodule_search_locations if spec else None
    for folder in folders or ():
        for name in ("libbsmamba2_ort.so", "libbsmamba2_ort.dylib"):
            if (found := Path(folder, "native", name)).is_file():
                return found
    return None


def instruction_set() -> str | None:
    """Which of the processor's instructions the kernels use, e.g. ``avx2``.

    None where their library cannot be loaded, or ``BSMAMBA2_ISA`` names what is not here.
    """
    path = library()
    native = open_library(str(path)) if path else None
    if native is None or not hasattr(native, "bsmamba2_isa"):
        return None
    native.bsmamba2_isa.restype = ctypes.c_char_p
    return str(native.bsmamba2_isa().decode("ascii")) or None
