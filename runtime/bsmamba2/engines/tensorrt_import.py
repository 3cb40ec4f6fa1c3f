"""Imports TensorRT or TensorRT-RTX; both have the same interface."""

from __future__ import annotations

import importlib
from typing import Any

from bsmamba2.errors import MissingExtra
from bsmamba2.installation import install_command

_MODULES = {
    "tensorrt": ("tensorrt",),
    # The second package holds the bindings that the first one re-exports.
    "tensorrt-rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}


def import_tensorrt(backend: str) -> Any:
    """Imports the Python package of ``tensorrt`` or ``tensorrt-rtx``.

    Raises:
        MissingExtra: the package is not installed, or does not load.
    """
    reason = ""
    for name in _MODULES[backend]:
        try:
            return importlib.import_module(name)
        except ImportError as error:
            reason = str(error)
    raise MissingExtra(f"{backend} cannot be loaded ({reason}); run: {install_command(backend)}")
