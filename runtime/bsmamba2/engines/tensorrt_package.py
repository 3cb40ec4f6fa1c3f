"""The two TensorRTs, which have the same interface as far as it is used here: one place that
imports them."""

from __future__ import annotations

import importlib
from typing import Any

from bsmamba2.errors import MissingExtra

_MODULES = {
    "tensorrt": ("tensorrt",),
    # The package of the second name is the bindings that the first one re-exports.
    "tensorrt-rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}


def import_tensorrt(backend: str) -> Any:
    """The Python package of ``tensorrt`` or ``tensorrt-rtx``.

    Raises:
        MissingExtra: it is not installed, or does not load.
    """
    reason = ""
    for name in _MODULES[backend]:
        try:
            return importlib.import_module(name)
        except ImportError as error:
            reason = str(error)
    line = 'pip install "bsmamba2[tensorrt-rtx]"'
    if backend == "tensorrt":
        line = "pip install tensorrt-cu13"
    raise MissingExtra(f"{backend} cannot be loaded ({reason}); run: {line}")
