"""Files that were joined to one, as ``cat a.m4a b.m4a`` does.

Decoders read the first and take its end for the end of the song, whatever follows. So each file
gets a window, and is decoded as if it were alone.
"""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, BinaryIO

from bsmamba2.files.regular_file import open_regular

if TYPE_CHECKING:
    from pathlib import Path

MAX_FILES = 1024
"""The most files that are looked for in one."""

_FLAC_STARTS = (b"fLaC\x00\x00\x00\x22", b"fLaC\x80\x00\x00\x22")
_SEARCH_BYTES = 1 << 20


class Window(io.RawIOBase):
    """The bytes of a file from ``start`` to ``stop``, as a file to read."""

    def __init__(self, file: BinaryIO, start: int, stop: int) -> None:
        self._file = file
        self._start = start
        self._size = stop - start
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves as files do; places before the start and after the end are allowed."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = base + offset
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """Returns the next bytes, fewer at the end."""
        left = max(0, self._size - self._at) if self._at >= 0 else 0
        self._file.seek(self._start + max(0, self._at))
        content = self._file.read(left if size is None or size < 0 else min(size, left))
        self._at += len(content)
        return content


def flac_starts(path: Path) -> tuple[int, ...]:
    """Returns where FLAC files start in a file that starts with one, or with tags and one.

    Returns (0,) for any other file. Only headers show where files start, because frames state no
    length. So all of the file is read.

    Raises:
        OSError: it cannot be read.
    """
    starts, before, at = list[int](), b"", 0
    overlap = len(_FLAC_STARTS[0]) - 1
    with open_regular(path) as file:
        if file.read(4) not in (b"fLaC", b"ID3\2", b"ID3\3", b"ID3\4"):
            return (0,)
        file.seek(0)
        while len(starts) < MAX_FILES and (content := file.read(_SEARCH_BYTES)):
            window = before + content
            offsets = [window.find(b"fLaC")]
            while offsets[-1] >= 0:
                offsets.append(window.find(b"fLaC", offsets[-1] + 1))
            starts += [
                at - len(before) + offset
                for offset in offsets[:-1]
                if window.startswith(_FLAC_STARTS, offset)
            ]
            at += len(content)
            before = window[-overlap:]
    return (0, *starts[1:])
