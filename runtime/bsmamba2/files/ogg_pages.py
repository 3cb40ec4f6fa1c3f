"""The pages of Ogg files: where they start, their checksums, and a serial number of our own.

Source: RFC 3533.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from pathlib import Path

MAX_PAGES = 1 << 20
"""The most pages that are read; an hour has some ten thousand."""

_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def find_pages(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yields where each page of an Ogg file starts, and its header; passes over other bytes."""
    at = 0
    for _ in range(MAX_PAGES):
        file.seek(at)
        head = file.read(27)
        if len(head) < 27:
            return
        if head[:4] != b"OggS":
            file.seek(at + 1)
            found = file.read(1 << 16).find(b"OggS")
            if found < 0:
                return
            at += 1 + found
            continue
        yield at, head
        file.seek(at + 27)
        at += 27 + head[26] + sum(file.read(head[26]))


def page_checksum(page: bytes) -> bytes:
    """Returns the checksum of a page: CRC-32 with the bits of every byte the other way round."""
    content = page[:22] + bytes(4) + page[26:]
    # zlib inverts its register before and after.
    crc = zlib.crc32(content.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return bytes(_REVERSED[byte] for byte in crc.to_bytes(4, "little"))[::-1]


def set_serial(path: Path) -> None:
    """Replaces the random serial number of a finished file by one that its content determines.

    So equal stems are equal files. The number stays different for different stems, as it must be
    where files are joined.

    Raises:
        OSError: the file cannot be written.
    """
    with path.open("r+b") as file:
        serial = 0
        for _, page in _whole_pages(file):
            serial = zlib.crc32(page[27 + page[26] :], serial)
        for at, page in _whole_pages(file):
            numbered = page[:14] + serial.to_bytes(4, "little") + page[18:]
            file.seek(at)
            file.write(numbered[:22] + page_checksum(numbered) + numbered[26:27])


def _whole_pages(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    for at, head in find_pages(file):
        file.seek(at + 27)
        lacing = file.read(head[26])
        yield at, head + lacing + file.read(sum(lacing))
