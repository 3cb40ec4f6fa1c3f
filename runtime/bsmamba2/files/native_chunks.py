"""Chunks of a WAV, AIFF or CAF song that describe it, and what stems of the same kind keep of them.

A WAV stem gets the song's LIST (INFO tags, labels), bext (BWF: a DAW places the file by its time
reference), iXML, cue and similar chunks as they are. What identifies or measures the song's samples
is cleared. Other formats get the text of INFO and of AIFF's text chunks as tags.

Songs are untrusted: at most :data:`MAX_BYTES` are copied.

Sources: the RIFF MCI extensions, EBU Tech 3285, the AIFF 1.3 specification.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bsmamba2.files.chunks import ChunkFile
from bsmamba2.files.regular_file import open_regular

if TYPE_CHECKING:
    from pathlib import Path

MAX_BYTES = 1 << 20
"""The most that is copied of all chunks together."""

WAV = (b"RIFF", b"RF64", b"BW64")
KEPT = {
    **dict.fromkeys(WAV, (b"LIST", b"bext", b"iXML", b"axml", b"cue ", b"cart", b"smpl", b"acid")),
    b"FORM": (b"NAME", b"AUTH", b"(c) ", b"ANNO", b"MARK", b"COMT"),
    b"caff": (b"chan", b"info", b"mark", b"strg"),
}
"""The chunks that stems keep, by the first four bytes of the song."""

INFO = {
    b"INAM": "title",
    b"IART": "artist",
    b"IPRD": "album",
    b"ICRD": "date",
    b"IGNR": "genre",
    b"ICMT": "comment",
    b"ICOP": "copyright",
    b"ITRK": "tracknumber",
    b"IPRT": "tracknumber",
    b"IMUS": "composer",
    b"ILNG": "language",
}
AIFF = {b"NAME": "title", b"AUTH": "artist", b"(c) ": "copyright", b"ANNO": "comment"}

_TIME_REFERENCE, _VERSION, _UMID, _LOUDNESS, _LOUDNESS_END = 338, 346, 348, 412, 422
_UNSET = b"\xff\x7f"
_MAX_RIFF_BYTES = (1 << 32) - (1 << 16)


@dataclass(frozen=True)
class NativeChunks:
    """Chunks of a song."""

    kind: bytes = b""
    """The first four bytes of the song; empty if it has no chunks."""
    chunks: tuple[tuple[bytes, bytes], ...] = ()
    """The letters and the content of each."""
    speaker_mask: int | None = None
    """The speakers of its channels, if it states them."""
    has_id3: bool = False
    """Whether one of its chunks is an ID3 tag."""

    def fits(self, container: str) -> bool:
        """Whether stems in a container of libsndfile keep the chunks as they are."""
        if self.kind in WAV:
            return container in ("WAV", "WAVEX", "RF64")
        return (self.kind, container) in ((b"FORM", "AIFF"), (b"caff", "CAF"))

    @property
    def fields(self) -> dict[str, list[str]]:
        """The text of the chunks, by the lower-case names of Vorbis comments."""
        found: dict[str, list[str]] = {}
        for id, content in self.chunks:
            if id in AIFF and self.kind == b"FORM":
                found.setdefault(AIFF[id], []).append(_text(content))
            elif id == b"LIST" and content[:4] == b"INFO":
                for name, value in _parts(content):
                    if name in INFO and (text := _text(value)):
                        found.setdefault(INFO[name], [text])
            elif id == b"bext" and any(time := content[_TIME_REFERENCE:_VERSION]):
                found["time_reference"] = [str(int.from_bytes(time, "little"))]
        return found


def read_native_chunks(path: Path) -> NativeChunks:
    """Reads what stems keep of a song's chunks.

    Raises:
        OSError: the file cannot be read.
    """
    with open_regular(path) as stream:
        try:
            file = ChunkFile(stream, os.fstat(stream.fileno()).st_size)
        except ValueError:
            return NativeChunks()
        kept, size = [], 0
        for chunk in file.chunks:
            if chunk.id not in KEPT.get(file.kind, ()) or not 0 < chunk.size <= MAX_BYTES - size:
                continue
            content = file.read(chunk, MAX_BYTES)
            size += len(content)
            if len(content) == chunk.size:
                kept.append((chunk.id, _of_stem(chunk.id, content)))
        format = file.find(b"fmt ")
        header = file.read(format, 24) if format else b""
        is_extensible = header[:2] == b"\xfe\xff" and len(header) == 24
        mask = int.from_bytes(header[20:24], "little") if is_extensible else None
        has_id3 = any(chunk.id.upper() == b"ID3 " for chunk in file.chunks)
        return NativeChunks(file.kind, tuple(kept), mask, has_id3)


def complete_chunks(path: Path, native: NativeChunks, speaker_mask: int | None) -> None:
    """Gives a finished WAV or AIFF stem its song's chunks and mask, and clears its time stamp.

    libsndfile writes the time into the PEAK chunk of float files, so equal stems would differ.

    Raises:
        OSError: the file cannot be written.
    """
    with path.open("r+b") as stream:
        size = os.fstat(stream.fileno()).st_size
        try:
            file = ChunkFile(stream, size)
        except ValueError:
            return
        if peak := file.find(b"PEAK"):
            stream.seek(peak.start + 4)
            stream.write(bytes(4))
        format = file.find(b"fmt ")
        if speaker_mask is not None and format and file.read(format, 2) == b"\xfe\xff":
            stream.seek(format.start + 20)
            stream.write(speaker_mask.to_bytes(4, "little"))
        layout, order = file.layout, file.layout.byteorder
        added = bytes(-size % layout.align) + b"".join(
            id
            + len(content).to_bytes(layout.size_bytes, order)
            + content
            + bytes(-len(content) % layout.align)
            for id, content in native.chunks
        )
        whole = size + len(added) - 8
        is_short = file.kind in (b"RIFF", b"FORM")
        if not native.chunks or (is_short and whole > _MAX_RIFF_BYTES):
            return
        stream.seek(size)
        stream.write(added)
        if file.kind == b"RF64" and (sizes := file.find(b"ds64")):
            stream.seek(sizes.start)
            stream.write(whole.to_bytes(8, "little"))
        elif is_short:
            stream.seek(4)
            stream.write(whole.to_bytes(4, order))


def _of_stem(id: bytes, content: bytes) -> bytes:
    """Clears what identifies or measures the song's samples in a bext chunk."""
    if id != b"bext" or len(content) < _LOUDNESS_END:
        return content
    has_loudness = content[_VERSION] >= 2
    loudness = 5 * _UNSET if has_loudness else content[_LOUDNESS:_LOUDNESS_END]
    umid = bytes(_LOUDNESS - _UMID)
    return content[:_UMID] + umid + loudness + content[_LOUDNESS_END:]


def _parts(content: bytes) -> list[tuple[bytes, bytes]]:
    """Returns the letters and the content of each part of a LIST."""
    found, at = [], 4
    while at + 8 <= len(content):
        size = int.from_bytes(content[at + 4 : at + 8], "little")
        found.append((content[at : at + 4], content[at + 8 : at + 8 + size]))
        at += 8 + size + size % 2
    return found


def _text(content: bytes) -> str:
    """Decodes text that ends at the first NUL, in UTF-8 or else in the usual 8 bits."""
    text = content.partition(b"\0")[0]
    try:
        return text.decode().strip()
    except UnicodeDecodeError:
        return text.decode("cp1252", "replace").strip()
