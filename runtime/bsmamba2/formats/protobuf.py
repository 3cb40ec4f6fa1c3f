"""Reads protocol buffers, the format of ONNX files: nested fields of (number, kind, payload)."""

from __future__ import annotations

import mmap
from collections.abc import Iterator

from bsmamba2.errors import ModelError

MAX_FIELDS = 1 << 19
"""The most fields that are read of a file; the largest shipped graph has 64,000."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class MappedFile(mmap.mmap):
    """A file of nested fields in memory, of which so many may still be read."""

    fields_left = MAX_FIELDS


def text(data: mmap.mmap, field: range) -> str:
    """Returns a field as text.

    Raises:
        ModelError: it is not UTF-8.
    """
    try:
        return data[field.start : field.stop].decode("utf-8")
    except UnicodeDecodeError:
        raise ModelError("text that is not UTF-8") from None


def fields(data: MappedFile, message: range) -> Iterator[tuple[int, range]]:
    """Yields number and range of each length-delimited field of a message; skips other fields.

    Raises:
        ModelError: the message is damaged, or the file has too many fields.
    """
    at = message.start
    while at < message.stop:
        data.fields_left -= 1
        if data.fields_left < 0:
            raise ModelError("too many fields")
        key, at = varint(data, at, message.stop)
        kind = key & 7
        if key < 8:
            raise ModelError("a field without a number")
        if kind == _BYTES:
            size, at = varint(data, at, message.stop)
            if size > message.stop - at:
                raise ModelError("a field reaches past its message")
            yield key >> 3, range(at, at + size)
            at += size
        elif kind == _VARINT:
            _, at = varint(data, at, message.stop)
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:
            raise ModelError("a field of unknown kind")


def varint(data: mmap.mmap, at: int, stop: int) -> tuple[int, int]:
    """Returns a base-128 number and the offset after it.

    Raises:
        ModelError: the number does not end before ``stop``.
    """
    value = shift = 0
    while at < stop and shift < 64:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ModelError("a number without an end")
