"""Rewrites an ID3 tag so that it is small and plain, before the tag library reads it.

A frame may be compressed, so a tag of a megabyte can stand for gigabytes; and the library takes
time that grows with the square of the number of frames and values. This module walks the frames
without copying them, unpacks at most :data:`MAX_UNPACKED` bytes, and writes a new tag of plain
frames within the bounds below, which are far above those of real songs.

Source: the informal standards ID3v2.2, ID3v2.3 and ID3v2.4.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

MAX_BYTES = 32 << 20
"""Of all tags together."""

MAX_UNPACKED = 4 << 20
MAX_FRAMES = 1024
MAX_VALUES = 4096
MAX_PICTURES = 64

_LARGE = {b"APIC", b"PIC", b"GEOB", b"GEO", b"PRIV"}
"""Frames that hold a file."""
_TEXT = (b"T", b"COM", b"USLT", b"ULT", b"CHAP", b"CTOC")
_MAX_TEXT = 1 << 20
_MAX_OTHER = 1 << 16

_PLAIN_NAME = re.compile(rb"[A-Z0-9]{3}[A-Z0-9 \0]?")
_NOT_UNSYNCHRONISED = re.compile(rb"\xff[\xe0-\xff]")


@dataclass
class Budget:
    """How much of a song's tags may still be read, and how many were left out."""

    bytes: int = MAX_BYTES
    unpacked: int = MAX_UNPACKED
    frames: int = MAX_FRAMES
    values: int = MAX_VALUES
    pictures: int = MAX_PICTURES
    left_out: int = 0


def bounded_id3(tag: bytes, budget: Budget) -> bytes:
    """Returns the tag with its frames plain and within the budget.

    Args:
        tag: may be cut off. Of one that is not a tag, the first bytes are returned, which the tag
            library refuses.
        budget: what the frames take is subtracted.
    """
    if len(tag) < 10 or tag[:3] != b"ID3" or tag[3] not in (2, 3, 4) or max(tag[6:10]) > 0x7F:
        return tag[:10]
    version, flags = tag[3], tag[5]
    body = tag[10 : 10 + syncsafe(tag[6:10])]
    if version < 4 and flags & 0x80:
        body = _synchronised(body)
    if version > 2 and flags & 0x40:
        body = body[_extended_header_bytes(body, version) :]
    frames = b"".join(_bounded_frames(body, version, bool(flags & 0x80), budget))
    return b"ID3" + bytes([version, 0, 0]) + _to_syncsafe(len(frames)) + frames


def _bounded_frames(
    body: bytes, version: int, unsynchronised: bool, budget: Budget, is_inner: bool = False
) -> Iterator[bytes]:
    size_of = syncsafe if version == 4 else _plain
    if version == 4 and _count(body, _plain) > _count(body, syncsafe):
        size_of = _plain  # early versions of iTunes wrote plain sizes
    for name, flags, data in _walk(body, version, size_of):
        plain = _unpacked(data, version, flags, unsynchronised, budget)
        if plain is not None and name in (b"CHAP", b"CTOC"):
            plain = None if is_inner else _bounded_chapter(name, plain, version, budget)
        if plain is None or not _is_paid(name, plain, budget):
            budget.left_out += 1
        elif version == 2:
            yield name + len(plain).to_bytes(3, "big") + plain
        else:
            size = _to_syncsafe(len(plain)) if version == 4 else len(plain).to_bytes(4, "big")
            yield name + size + b"\0\0" + plain


def _walk(
    body: bytes, version: int, size_of: Callable[[bytes], int]
) -> Iterator[tuple[bytes, int, bytes]]:
    """Yields name, flags and content of each frame; ends at the padding."""
    letters, header = (3, 6) if version == 2 else (4, 10)
    at = 0
    while at + header <= len(body):
        name = body[at : at + letters]
        size = size_of(body[at + letters : at + 2 * letters])
        flags = 0 if version == 2 else int.from_bytes(body[at + 8 : at + 10], "big")
        if not name.strip(b"\0"):
            return
        start, at = at + header, at + header + size
        if size and _PLAIN_NAME.fullmatch(name):
            yield name, flags, body[start:at]


def _count(body: bytes, size_of: Callable[[bytes], int]) -> int:
    """Returns how many frames, up to the bound, have names if sizes are read this way."""
    return sum(1 for _, _ in zip(_walk(body, 4, size_of), range(MAX_FRAMES), strict=False))


def _unpacked(
    data: bytes, version: int, flags: int, unsynchronised: bool, budget: Budget
) -> bytes | None:
    """Returns the content of a frame; None if it is encrypted, damaged, or beyond the budget."""
    packed, encrypted = (0x08, 0x04) if version == 4 else (0x80, 0x40)
    if version == 2:
        return data
    if flags & encrypted:
        return None
    if flags & (packed | 0x01 if version == 4 else packed):
        data = data[4:]  # the length of the content
    if version == 4 and (unsynchronised or flags & 0x02):
        data = _synchronised(data)
    return _inflated(data, budget) if flags & packed else data


def _inflated(data: bytes, budget: Budget) -> bytes | None:
    inflate = zlib.decompressobj()
    try:
        content = inflate.decompress(data, budget.unpacked + 1)
    except zlib.error:
        return None
    if not inflate.eof or len(content) > budget.unpacked:
        return None
    budget.unpacked -= len(content)
    return content


def _bounded_chapter(name: bytes, data: bytes, version: int, budget: Budget) -> bytes | None:
    """Returns a chapter or a table of contents whose own frames are within the budget."""
    at = data.find(b"\0") + 1
    if not at:
        return None
    if name == b"CHAP":
        at += 16
    else:
        children = data[at + 1] if at + 1 < len(data) else 0
        at += 2
        for _ in range(children):
            at = data.find(b"\0", at) + 1
            if not at:
                return None
    return data[:at] + b"".join(_bounded_frames(data[at:], version, False, budget, is_inner=True))


def _is_paid(name: bytes, data: bytes, budget: Budget) -> bool:
    """Subtracts a frame from the budget; returns False if it does not fit."""
    is_picture, is_text = name in (b"APIC", b"PIC"), name.startswith(_TEXT)
    longest = MAX_BYTES if name in _LARGE else _MAX_TEXT if is_text else _MAX_OTHER
    end = b"\0\0" if data[:1] in (b"\1", b"\2") else b"\0"  # of a value, in this encoding
    values = data.count(end) + 1 if is_text else 0
    fits = (
        len(data) <= min(longest, budget.bytes)
        and values <= budget.values
        and budget.frames > 0
        and budget.pictures >= is_picture
    )
    if fits:
        budget.bytes -= len(data)
        budget.values -= values
        budget.frames -= 1
        budget.pictures -= is_picture
    return fits


def _extended_header_bytes(body: bytes, version: int) -> int:
    if _PLAIN_NAME.fullmatch(body[:4]):
        return 0  # some programs set the flag without writing the header
    return syncsafe(body[:4]) if version == 4 else 4 + _plain(body[:4])


def _synchronised(data: bytes) -> bytes:
    """Undoes unsynchronisation; returns data that is not unsynchronised as it is."""
    if _NOT_UNSYNCHRONISED.search(data):
        return data
    return data.replace(b"\xff\0", b"\xff")


def _plain(size: bytes) -> int:
    return int.from_bytes(size, "big")


def syncsafe(size: bytes) -> int:
    """Returns a number of seven bits per byte."""
    value = 0
    for byte in size:
        value = value << 7 | byte & 0x7F
    return value


def _to_syncsafe(value: int) -> bytes:
    return bytes(value >> shift & 0x7F for shift in (21, 14, 7, 0))
