"""ID3 tags written by hand, among them some that no program should read whole."""

from __future__ import annotations

import zlib

PACKED = {3: 0x80, 4: 0x09}
"""The flags of a compressed frame; version 4 also states the length of the content."""


def syncsafe(value: int) -> bytes:
    return bytes(value >> shift & 0x7F for shift in (21, 14, 7, 0))


def tag(*frames: bytes, version: int = 4, flags: int = 0) -> bytes:
    body = b"".join(frames)
    return b"ID3" + bytes([version, 0, flags]) + syncsafe(len(body)) + body


def frame(name: bytes, data: bytes, version: int = 4, flags: int = 0) -> bytes:
    size = syncsafe(len(data)) if version == 4 else len(data).to_bytes(4, "big")
    return name + size + flags.to_bytes(2, "big") + data


def packed(name: bytes, data: bytes, version: int) -> bytes:
    return frame(name, len(data).to_bytes(4, "big") + zlib.compress(data), version, PACKED[version])


def bomb(version: int, size: int = 1 << 26) -> bytes:
    """Twenty compressed frames of this size, and a title."""
    pack = zlib.compressobj()
    data = b"".join(pack.compress(bytes(1 << 20)) for _ in range(size >> 20)) + pack.flush()
    one = frame(b"PRIV", bytes(4) + data, version, PACKED[version])
    return tag(*[one] * 20, frame(b"TIT2", b"\3ok", version), version=version)
