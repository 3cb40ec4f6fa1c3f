"""Writes PNG images of 64 colours.

Source: PNG (Portable Network Graphics) Specification, third edition.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
import numpy.typing as npt

COLOURS = 64

_STOPS = ((0, 0, 6), (45, 12, 95), (125, 30, 108), (205, 66, 71), (246, 140, 30), (252, 250, 165))
"""Red, green and blue from the lowest value to the highest; their lightness rises steadily."""


def png(values: npt.NDArray[np.uint8]) -> bytes:
    """Returns a PNG file.

    Args:
        values: (rows, columns), the top row first, from 0 (black) to 63 (light yellow).
    """
    rows, columns = values.shape
    header = struct.pack(">IIBBBBB", columns, rows, 8, 3, 0, 0, 0)  # 8 bits, indexed colours
    lines = np.pad(values, ((0, 0), (1, 0)))  # each begins with its filter, 0: none
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", header),
            _chunk(b"PLTE", _palette()),
            _chunk(b"IDAT", zlib.compress(lines.tobytes(), 6)),
            _chunk(b"IEND", b""),
        ]
    )


def _palette() -> bytes:
    at = np.linspace(0, len(_STOPS) - 1, COLOURS)
    bands = [np.interp(at, range(len(_STOPS)), band) for band in zip(*_STOPS, strict=True)]
    return np.stack(bands, axis=1).round().astype(np.uint8).tobytes()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
