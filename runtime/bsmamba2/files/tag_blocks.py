"""Finds the tags of a song and copies them, within bounds, into a small file for the tag library.

The library trusts the sizes in a file, and its work can grow with the square of the number of
tags. So it never sees the song: only the tags that this module has found, counted and copied, in
the smallest file of the same kind. What exceeds the bounds of :mod:`bsmamba2.files.id3_bounds` is
left out.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

from mutagen.flac import FLAC, Picture, VCFLACDict
from mutagen.id3 import ID3, ID3NoHeaderError
from mutagen.mp4 import MP4

from bsmamba2.errors import first_line
from bsmamba2.files.ape_and_asf import ASF_START, read_ape, read_asf
from bsmamba2.files.id3_bounds import MAX_BYTES, Budget, bounded_id3, syncsafe
from bsmamba2.files.regular_file import open_regular

log = logging.getLogger("bsmamba2")

MAX_BLOCKS = 1 << 14
"""The most chunks, pages or atoms that are looked at."""

_FLAC_COMMENTS, _FLAC_PICTURE = 4, 6
_OGG_COMMENTS = {b"\x01vorbis": 7, b"OpusHead": 8, b"\x7fFLAC": 4, b"Speex   ": 0}
"""How a stream starts, and where the comments start in its second packet."""


def open_tags(path: Path, budget: Budget) -> Any:
    """Returns the song's tags: mutagen's ID3, FLAC or MP4, or an object with Vorbis ``tags``,
    or :class:`bsmamba2.files.ape_and_asf.PlainTags`.

    Returns None if there are none.

    Args:
        path: the song.
        budget: what the tags take is subtracted; what does not fit is counted.

    Raises:
        OSError, mutagen.MutagenError: the file cannot be read, or the tags are damaged.
    """
    with open_regular(path) as file:
        head = file.read(16)
        if head == ASF_START:
            return read_asf(file, budget)
        if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
            return _id3_in_chunks(file, "little", budget)
        if head[:4] == b"FORM" and head[8:11] == b"AIF":
            return _id3_in_chunks(file, "big", budget)
        if head[:4] == b"OggS":
            return _vorbis_in_ogg(file, budget)
        if head[4:8] == b"ftyp":
            return _mp4(file, budget)
        start = 10 + syncsafe(head[6:10]) if head[:3] == b"ID3" else 0
        file.seek(start)
        if file.read(4) == b"fLaC":
            return _flac(file, path.name, budget)
        old = _tail(file)
        found = _id3(_read(file, 0, start), old, budget) if start else None
        # A tag of version 1 cuts its values off, so one of APE counts first.
        return found or read_ape(file, budget) or _id3(b"", old, budget)


def _id3(tag: bytes, old_tag: bytes, budget: Budget) -> ID3 | None:
    """Reads a tag of version 2, and one of version 1, which ends a file."""
    try:
        return ID3(io.BytesIO(bounded_id3(tag, budget) + old_tag))
    except ID3NoHeaderError:
        return None


def _id3_in_chunks(file: BinaryIO, order: Any, budget: Budget) -> ID3 | None:
    """Finds the tag in the chunks of WAV (little-endian) or AIFF (big-endian)."""
    for name, start, size in _chunks(file, order):
        if name.upper() == b"ID3 ":
            return _id3(_read(file, start, size), b"", budget)
    return None


def _chunks(file: BinaryIO, order: Any) -> Iterator[tuple[bytes, int, int]]:
    at = 12
    for _ in range(MAX_BLOCKS):
        file.seek(at)
        header = file.read(8)
        if len(header) < 8:
            return
        size = int.from_bytes(header[4:], order)
        yield header[:4], at + 8, size
        at += 8 + size + size % 2


def _flac(file: BinaryIO, name: str, budget: Budget) -> FLAC | None:
    """Copies the first block, the comments and the pictures; ``file`` is behind ``fLaC``."""
    blocks: list[tuple[int, bytes]] = []
    for _ in range(MAX_BLOCKS):
        header = file.read(4)
        if len(header) < 4:
            break
        kind, size = header[0] & 0x7F, int.from_bytes(header[1:], "big")
        if kind == _FLAC_COMMENTS and all(known != kind for known, _ in blocks):
            blocks.append((kind, _bounded_comments(_read(file, file.tell(), size), budget)))
        elif kind == 0 and not blocks:
            blocks.append((kind, file.read(min(size, 34))))
        elif kind == _FLAC_PICTURE and size <= budget.bytes and budget.pictures:
            budget.bytes -= size
            budget.pictures -= 1
            block = file.read(size)
            if _is_picture(block, name):
                blocks.append((kind, block))
        else:
            budget.left_out += kind == _FLAC_PICTURE
            file.seek(size, io.SEEK_CUR)
        if header[0] & 0x80:
            break
    if not blocks or blocks[0][0] != 0:
        return None
    parts = [bytes([kind]) + len(data).to_bytes(3, "big") + data for kind, data in blocks]
    parts[-1] = bytes([parts[-1][0] | 0x80]) + parts[-1][1:]
    return FLAC(io.BytesIO(b"fLaC" + b"".join(parts) + bytes(64)))


def _is_picture(block: bytes, name: str) -> bool:
    """Whether a block can be read; a damaged one must not take the other tags with it."""
    try:
        Picture(block)
    except Exception as error:  # mutagen raises many classes
        log.warning("a picture of %s is damaged (%s): it is dropped", name, first_line(error))
        return False
    return True


def _vorbis_in_ogg(file: BinaryIO, budget: Budget) -> Any:
    """Returns an object with the comments of the first stream of audio."""
    start: int | None = None
    serial, packet, has_started = b"", bytearray(), False
    for page_serial, parts, data in _pages(file):
        if start is None:
            start = next((n for mark, n in _OGG_COMMENTS.items() if data.startswith(mark)), None)
            serial = page_serial
            continue
        if page_serial != serial:
            continue
        has_started = True
        first = next((k for k, size in enumerate(parts) if size < 255), None)
        packet += data[: sum(parts if first is None else parts[: first + 1])]
        if first is not None or len(packet) > budget.bytes:
            break
    if start is None or not has_started:
        return None
    comments = _bounded_comments(bytes(packet[start:]), budget)
    return SimpleNamespace(tags=VCFLACDict(comments))


def _pages(file: BinaryIO) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Yields serial number, sizes of the segments, and content of each page."""
    file.seek(0)
    for _ in range(MAX_BLOCKS):
        header = file.read(27)
        if len(header) < 27 or header[:4] != b"OggS":
            return
        parts = file.read(header[26])
        yield header[14:18], parts, file.read(sum(parts))


def _bounded_comments(block: bytes, budget: Budget) -> bytes:
    """Returns a block of Vorbis comments with those that fit the budget."""
    kept = []
    at = 8 + _number(block, 0)
    count = _number(block, at - 4)
    for _ in range(min(count, MAX_BLOCKS)):
        size = _number(block, at)
        comment = block[at + 4 : at + 4 + size]
        at += 4 + size
        if len(comment) < size or at > len(block):
            break
        if size <= budget.bytes and budget.values:
            budget.bytes -= size
            budget.values -= 1
            kept.append(size.to_bytes(4, "little") + comment)
        else:
            budget.left_out += 1
    budget.left_out += max(0, count - MAX_BLOCKS) if at < len(block) else 0
    return bytes(4) + len(kept).to_bytes(4, "little") + b"".join(kept)


def _number(block: bytes, at: int) -> int:
    return int.from_bytes(block[at : at + 4], "little")


def _mp4(file: BinaryIO, budget: Budget) -> MP4 | None:
    """Copies the items of ``moov.udta.meta.ilst``."""
    end = file.seek(0, io.SEEK_END)
    start, stop = 0, end
    for name, skipped in ((b"moov", 0), (b"udta", 0), (b"meta", 4), (b"ilst", 0)):
        found = next((atom for atom in _atoms(file, start, stop) if atom[0] == name), None)
        if found is None:
            return None
        start, stop = found[1] + skipped, found[2]
    items = []
    for name, first, last in _atoms(file, start, stop):
        size, pictures = last - first, name == b"covr"
        if size <= budget.bytes and budget.frames and budget.pictures >= pictures:
            item = _read(file, first, size)
            values = item.count(b"data")
            if values <= budget.values:
                budget.bytes -= size
                budget.frames -= 1
                budget.values -= values
                budget.pictures -= pictures
                items.append(_atom(name, item))
                continue
        budget.left_out += 1
    tags = _atom(b"udta", _atom(b"meta", bytes(4) + _atom(b"ilst", b"".join(items))))
    return MP4(io.BytesIO(_atom(b"ftyp", b"M4A \0\0\0\0") + _atom(b"moov", tags)))


def _atoms(file: BinaryIO, start: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """Yields name, start and stop of the content of each atom."""
    for _ in range(MAX_BLOCKS):
        if start + 8 > stop:
            return
        file.seek(start)
        header = file.read(16)
        size, behind = int.from_bytes(header[:4], "big"), 8
        if size == 1:
            size, behind = int.from_bytes(header[8:], "big"), 16
        elif size == 0:
            size = stop - start
        if not behind <= size <= stop - start:
            return
        yield header[4:8], start + behind, start + size
        start += size


def _atom(name: bytes, content: bytes) -> bytes:
    return (8 + len(content)).to_bytes(4, "big") + name + content


def _read(file: BinaryIO, start: int, size: int) -> bytes:
    file.seek(start)
    return file.read(min(size, MAX_BYTES + (1 << 16)))


def _tail(file: BinaryIO) -> bytes:
    """Returns the tag of version 1 at the end of the file; nothing if there is none."""
    end = file.seek(0, io.SEEK_END)
    file.seek(max(0, end - 128))
    tail = file.read(128)
    return tail if tail.startswith(b"TAG") else b""
