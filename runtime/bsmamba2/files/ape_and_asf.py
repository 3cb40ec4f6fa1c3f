"""Reads the tags of APE (Monkey's Audio, WavPack, some MP3s) and ASF (WMA), within bounds.

The tag library reads a copy of the tags alone: as many items as the budget has, and of an ASF
header only the objects that hold tags.

Sources: the APEv2 specification of Hydrogenaudio, and Microsoft's ASF specification.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from mutagen.apev2 import APEv2
from mutagen.asf import ASF
from mutagen.flac import Picture

from bsmamba2.files.id3_bounds import Budget

ASF_START = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
MAX_OBJECT_BYTES = 8 << 20
"""Of one object of an ASF header; a picture is in one with other tags."""

MAX_OBJECTS = 1024

_DESCRIPTION = bytes.fromhex("3326b2758e66cf11a6d900aa0062ce6c")
_MORE_DESCRIPTION = bytes.fromhex("40a4d0d207e3d21197f000a0c95ea850")
_HEADER_EXTENSION = bytes.fromhex("b503bf5f2ea9cf118ee300c00c205365")

_APE_NAMES = {
    "album artist": "albumartist",
    "year": "date",
    "track": "tracknumber",
    "disc": "discnumber",
    "publisher": "organization",
}
_ASF_NAMES = {
    "title": "title",
    "author": "artist",
    "wm/albumtitle": "album",
    "wm/albumartist": "albumartist",
    "wm/composer": "composer",
    "wm/conductor": "conductor",
    "wm/writer": "lyricist",
    "wm/genre": "genre",
    "wm/year": "date",
    "wm/tracknumber": "tracknumber",
    "wm/partofset": "discnumber",
    "wm/beatsperminute": "bpm",
    "wm/initialkey": "initialkey",
    "copyright": "copyright",
    "wm/isrc": "isrc",
    "wm/language": "language",
    "wm/publisher": "organization",
    "description": "comment",
    "wm/lyrics": "lyrics",
}


@dataclass
class PlainTags:
    """Tags as text by the lower-case name of a Vorbis comment."""

    fields: dict[str, list[str]] = field(default_factory=dict)
    pictures: list[Picture] = field(default_factory=list)

    def add(self, name: str, value: str, budget: Budget) -> None:
        if budget.values:
            budget.values -= 1
            self.fields.setdefault(name, []).append(value)
        else:
            budget.left_out += 1

    def add_picture(self, picture: Picture | None, budget: Budget) -> None:
        if picture is not None and budget.pictures:
            budget.pictures -= 1
            self.pictures.append(picture)
        else:
            budget.left_out += 1


def read_ape(file: BinaryIO, budget: Budget) -> PlainTags | None:
    """Reads the APE tag at the end of a file, or before an ID3 tag of version 1.

    Returns None if there is none.
    """
    end = file.seek(0, io.SEEK_END)
    for behind in (0, 128):
        file.seek(max(0, end - behind - 32))
        footer = file.read(32)
        size = int.from_bytes(footer[12:16], "little")
        if footer[:8] == b"APETAGEX" and 32 <= size <= end - behind:
            break
    else:
        return None
    count = int.from_bytes(footer[16:20], "little")
    if size > budget.bytes:
        budget.left_out += count
        return None
    budget.left_out += max(0, count - budget.frames)
    kept = min(count, budget.frames).to_bytes(4, "little")
    file.seek(end - behind - size)
    # The flags say that there is no header in the copy.
    copy = file.read(size - 32) + footer[:16] + kept + bytes(12)
    budget.bytes -= size
    tags = PlainTags()
    for key, value in APEv2(io.BytesIO(copy)).items():
        name = key.lower()
        if name.startswith("cover art"):
            tags.add_picture(_ape_picture(name, bytes(value)), budget)
        elif not isinstance(value.value, bytes):
            for line in str(value.value).split("\0"):
                tags.add(_APE_NAMES.get(name, name), line, budget)
    return tags


def read_asf(file: BinaryIO, budget: Budget) -> PlainTags | None:
    """Reads the objects with tags in the header of an ASF file."""
    kept: list[bytes] = []
    file.seek(30)
    for _ in range(MAX_OBJECTS):
        head = file.read(24)
        size = int.from_bytes(head[16:], "little")
        if len(head) < 24 or size < 24:
            break
        if head[:16] not in (_DESCRIPTION, _MORE_DESCRIPTION, _HEADER_EXTENSION):
            file.seek(min(size - 24, 1 << 40), io.SEEK_CUR)
        elif size > min(MAX_OBJECT_BYTES, budget.bytes):
            budget.left_out += 1
            break
        else:
            budget.bytes -= size
            kept.append(head + file.read(size - 24))
    body = b"".join(kept)
    header = ASF_START + (30 + len(body)).to_bytes(8, "little")
    copy = header + len(kept).to_bytes(4, "little") + b"\x01\x02" + body
    return _from_asf(ASF(io.BytesIO(copy)).tags or (), budget)


def _from_asf(found: Iterable[tuple[str, Any]], budget: Budget) -> PlainTags:
    tags = PlainTags()
    for key, value in found:
        name = _ASF_NAMES.get(key.lower())
        if key.lower() == "wm/picture":
            tags.add_picture(_asf_picture(value.value), budget)
        elif name and str(value):
            tags.add(name, str(value), budget)
    return tags


def _asf_picture(content: object) -> Picture | None:
    """Reads type, size, MIME type and description in UTF-16, and the data."""
    if not isinstance(content, bytes) or len(content) < 9:
        return None
    texts, at = [], 5
    for _ in range(2):
        end = next((k for k in range(at, at + 512, 2) if content[k : k + 2] == b"\0\0"), None)
        if end is None:
            return None
        texts.append(content[at:end].decode("utf-16-le", "replace"))
        at = end + 2
    size = int.from_bytes(content[1:5], "little")
    return _picture(content[0], texts[0], texts[1], content[at : at + size])


def _ape_picture(name: str, content: bytes) -> Picture:
    description, _, data = content.partition(b"\0")
    mime = "image/png" if data.startswith(b"\x89PNG") else "image/jpeg"
    kind = 3 if "front" in name else 4 if "back" in name else 0
    return _picture(kind, mime, description.decode("utf-8", "replace"), data)


def _picture(kind: int, mime: str, description: str, data: bytes) -> Picture:
    picture = Picture()
    picture.type, picture.mime, picture.desc, picture.data = kind, mime, description, data
    return picture
