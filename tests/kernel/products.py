"""Calls the products of each instruction set in the kernels' library."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import numpy as np

from bsmamba2.audio.array import Audio

KINDS = ("bf16x3", "bf16", "int8")


@cache
def _open(library: Path) -> ctypes.CDLL:
    opened = ctypes.CDLL(str(library))
    opened.bsmamba2_product_set.restype = ctypes.c_char_p
    opened.bsmamba2_products.restype = ctypes.c_char_p
    return opened


def product_sets(library: Path) -> list[str]:
    """Returns the instruction sets with products that this machine has, ``portable`` last."""
    names = iter(lambda: _open(library).bsmamba2_product_set(len(found)), None)
    found: list[str] = []
    for name in names:
        found.append(name.decode())
    return found


def describe(library: Path, speed: str) -> str:
    """Returns the products that a speed uses, or the error."""
    return str(_open(library).bsmamba2_products(speed.encode()).decode())


def product(
    library: Path, instructions: str, kind: str, a: Audio, weights: Audio, threads: int = 1
) -> Audio | None:
    """Returns a · weightsᵀ; None if the instruction set has no products of this kind."""
    (rows, width), (columns, _) = a.shape, weights.shape
    a, weights = (np.ascontiguousarray(matrix, np.float32) for matrix in (a, weights))
    out = np.full((rows + 1, columns), 7, np.float32)  # a row more, which must stay as it is
    sizes = (ctypes.c_int64(size) for size in (rows, columns, width))
    pointers = (ctypes.c_void_p(array.ctypes.data) for array in (a, weights))
    status = _open(library).bsmamba2_product(
        product_sets(library).index(instructions),
        KINDS.index(kind),
        *pointers,
        *sizes,
        ctypes.c_void_p(out.ctypes.data),
        threads,
    )
    assert status in (0, 1)
    assert (out[rows] == 7).all()
    return out[:rows] if status == 0 else None
