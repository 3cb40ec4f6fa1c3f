"""The images are PNG files that other readers read, with the values in their places."""

from __future__ import annotations

import struct
import zlib

import matplotlib.image
import numpy as np
import pytest

from bsmamba2.report.png import COLOURS, png


def test_an_image_is_read_by_another_library(tmp_path: object) -> None:
    values = np.arange(6, dtype=np.uint8).reshape(2, 3) * 12
    path = f"{tmp_path}/image.png"
    with open(path, "wb") as file:  # noqa: PTH123
        file.write(png(values))
    image = matplotlib.image.imread(path)
    assert image.shape[:2] == (2, 3)
    lightness = image[..., :3].sum(axis=-1).reshape(-1)
    assert (np.diff(lightness) > 0).all()


@pytest.mark.parametrize("shape", [(1, 1), (96, 2048), (3, 1)])
def test_every_chunk_has_its_checksum(shape: tuple[int, int]) -> None:
    values = np.random.default_rng(0).integers(0, COLOURS, shape).astype(np.uint8)
    data, at, kinds = png(values), 8, []
    while at < len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        body = data[at + 4 : at + 8 + size]
        assert struct.unpack(">I", data[at + 8 + size : at + 12 + size])[0] == zlib.crc32(body)
        kinds.append(body[:4])
        at += 12 + size
    assert kinds == [b"IHDR", b"PLTE", b"IDAT", b"IEND"]
