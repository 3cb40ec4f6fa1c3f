"""What the bytes of a song state about its length, independent of any decoder.

Decoders take the end of a file for the end of the song. libsndfile also stops after the first part
of a chain (Ogg files or MP3s joined together), and at a change of rate or channels. So the
structure of a file is read before it is decoded: :func:`read_structure` says whether bytes are
missing, and whether libsndfile would read all of it.

Songs are untrusted: headers are read one by one, and every loop moves forward in the file.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, BinaryIO

from bsmamba2.files.chunks import ChunkFile
from bsmamba2.files.mpeg_frames import Frames, count_frames, find_first_frame
from bsmamba2.files.ogg_pages import find_pages, page_checksum
from bsmamba2.files.regular_file import open_regular

if TYPE_CHECKING:
    from pathlib import Path

SLACK_BYTES = 64
"""So few missing bytes are a wrong header rather than a song that was cut off."""

MAX_HEADERS = 1 << 20
"""The most headers that are read; an hour of Ogg or MP4 has some ten thousand."""

FIRST_PAGE_S = 10
"""The first page of a stream that starts at 0 ends before this."""

_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_EBML = bytes.fromhex("1a45dfa3")
_SEGMENT = bytes.fromhex("18538067")
_OTHERS = (b"fLaC", b"wvpk", b"MAC ", b"TTA1", b"DSD ")
"""Files whose decoders compare the length with the one that the header states."""

_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"moof", b"styp", b"sidx")


@dataclass(frozen=True)
class Structure:
    """What the bytes of a file state."""

    missing: str = ""
    """How the file shows that bytes are missing; empty if nothing shows it."""
    doubt: str = ""
    """Why bytes may be missing; empty if nothing suggests it."""
    beyond_libsndfile: str = ""
    """Why libsndfile would not read all of it; empty if it reads all."""
    seconds: float | None = None
    """A length that the decoded song must reach; None if the structure states none."""
    packets_may_fail: bool = False
    """Whether bytes between the frames may look like a damaged one."""


def read_structure(path: Path) -> Structure:
    """Reads the structure of a song; that of an unknown kind is empty.

    Raises:
        OSError: the file cannot be read.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(16)
        if start[:4] in _OTHERS:
            return Structure()
        if start[:4] == b"OggS":
            return _ogg(file, size)
        if start[:4] in (b".snd", b"dns."):
            return _au(start, size)
        # Bytes inside these may look like an MP3 to libsndfile.
        for starts, kind, read in (
            (start == _ASF, "WMA", _asf),
            (start[:4] == _EBML, "Matroska", _matroska),
            (start[4:8] in _BOXES, "MP4", _mp4),
        ):
            if starts:
                return replace(read(file, size), beyond_libsndfile=f"it is {kind}")
        try:
            return _chunks(ChunkFile(file, size))
        except ValueError:
            first = find_first_frame(file, size)
            return Structure() if first is None else _mpeg(count_frames(file, size, first))


def _sized(what: str, end: int, size: int) -> Structure:
    """Compares where something ends, as its header states it, with the size of the file."""
    if end <= size + SLACK_BYTES:
        return Structure()
    return Structure(missing=f"its {what} should end at byte {end}, and the file has {size}")


def _chunks(file: ChunkFile) -> Structure:
    if file.samples is None:
        return Structure()
    if file.states_no_size:
        # libsndfile reads the other sizes that programs leave to the end, and AIFF by its COMM.
        unread = file.samples.size == 0 and file.samples.start < file.size and file.kind != b"FORM"
        return Structure(beyond_libsndfile="its header states no length" if unread else "")
    return _sized("samples", file.samples.start + file.samples.size, file.size)


def _au(start: bytes, size: int) -> Structure:
    order = "big" if start[:4] == b".snd" else "little"
    first, samples = (int.from_bytes(start[at : at + 4], order) for at in (4, 8))  # type: ignore[arg-type]
    return Structure() if samples == 0xFFFFFFFF else _sized("samples", first + samples, size)


def _asf(file: BinaryIO, size: int) -> Structure:
    """Reads the size of the file from its properties, unless they are those of a broadcast."""
    at, header = 30, 0
    for _ in range(256):
        file.seek(at)
        found = file.read(92)
        header = int.from_bytes(found[16:24], "little")
        if found[:16] == _ASF_PROPERTIES and len(found) == 92:
            is_broadcast = found[88] & 1
            stated = int.from_bytes(found[40:48], "little")
            return Structure() if is_broadcast else _sized("last packet", stated, size)
        if len(found) < 24 or not 24 <= header <= size:
            break
        at += header
    return Structure()


def _matroska(file: BinaryIO, size: int) -> Structure:
    """Reads the size of the segment, which follows the header; a live stream states none."""
    at = 4
    for id in (_EBML, _SEGMENT):
        file.seek(at - 4)
        head = file.read(12)
        if head[:4] != id or len(head) < 12 or head[4] == 0:
            break
        width = 9 - head[4].bit_length()
        content = int.from_bytes(head[4 : 4 + width]) & ((1 << 7 * width) - 1)
        if id == _SEGMENT and content != (1 << 7 * width) - 1:
            return _sized("segment", at + width + content, size)
        if content > size:
            break
        at += width + content + 4
    return Structure()


def _mp4(file: BinaryIO, size: int) -> Structure:
    at = 0
    for _ in range(MAX_HEADERS):
        file.seek(at)
        head = file.read(16)
        if len(head) < 8 or not head[4:8].isalnum():
            break
        length = int.from_bytes(head[:4])
        if length == 1:
            length = int.from_bytes(head[8:16])
        if length < 8:
            break  # 0: to the end of the file
        if at + length > size + SLACK_BYTES:
            return _sized(f"box {head[4:8].decode('ascii', 'replace')}", at + length, size)
        at += length
    return Structure()


def _mpeg(found: Frames) -> Structure:
    if not found.parts:
        return Structure()
    for part in found.parts:
        if part.stated and part.frames < part.stated - 1:
            return Structure(
                missing=f"its header states {part.stated} frames, and {part.frames} are there"
            )
    last = found.parts[-1]
    if found.is_cut and not last.stated:
        return Structure(missing="it ends in the middle of a frame")
    beyond = ""
    if len(found.parts) > 1:
        beyond = f"it has {len(found.parts)} parts, and libsndfile reads only the first"
    elif last.stated and last.frames > last.stated + 1:
        beyond = "it is longer than its header states, and libsndfile stops there"
    # Encoders start and end each part with padding, up to three frames.
    padding = sum(3 * part.samples / max(1, part.frames) / part.kind.rate for part in found.parts)
    seconds = sum(part.seconds for part in found.parts) - padding
    return Structure(beyond_libsndfile=beyond, seconds=seconds, packets_may_fail=True)


@dataclass
class _Link:
    """A part of an Ogg chain: streams that start together."""

    serials: set[bytes]
    """Streams without an end so far."""
    rate: int = 0
    """Hz of the samples that the pages of its first stream count; 0 if unknown."""
    has_content: bool = False
    first: int = 0
    last: int = -1
    """Samples before the first and after the last page."""


def _ogg(file: BinaryIO, size: int) -> Structure:
    links: list[_Link] = []
    numbers: dict[bytes, int] = {}
    end = 0
    for at, head in find_pages(file):
        serial, flags = head[14:18], head[5]
        count = int.from_bytes(head[6:14], "little", signed=True)
        number = int.from_bytes(head[18:22], "little")
        if flags & 2:
            if not links or links[-1].has_content:
                links.append(_Link(set(), _ogg_rate(file, at + 27 + head[26])))
            links[-1].serials.add(serial)
        elif links:
            link = links[-1]
            is_running = link.last < 0 and count > FIRST_PAGE_S * link.rate
            if number != numbers.get(serial, number) and not is_running:
                return Structure(missing=f"pages before byte {at} are lost")
            link.has_content = True
            if count > 0:
                if is_running:
                    link.first = count  # recorded from a running stream
                link.last = count
        numbers[serial] = number + 1
        if flags & 4 and links:
            links[-1].serials.discard(serial)
        file.seek(at)
        start = file.read(27 + head[26])
        content = sum(start[27:])
        end = at + len(start) + content
        if end <= size and page_checksum(start + file.read(content)) != start[22:26]:
            return Structure(missing=f"its page at byte {at} is damaged")
    if end > size:
        return Structure(missing="it ends in the middle of a page")
    if not links:
        return Structure()
    beyond = ""
    if len(links) > 1:
        beyond = f"it is a chain of {len(links)} parts, and libsndfile reads only the first"
    doubt = "its last page has no end mark" if links[-1].serials else ""
    known = all(link.rate for link in links)
    spans = [(max(0, k.last) - k.first, k.rate) for k in links]
    seconds = sum(count / rate for count, rate in spans) if known else None
    return Structure(doubt=doubt, beyond_libsndfile=beyond, seconds=seconds)


def _ogg_rate(file: BinaryIO, at: int) -> int:
    """Returns the rate of the samples that the pages of a stream count, from its first packet."""
    file.seek(at)
    packet = file.read(16)
    if packet[:8] == b"OpusHead":
        return 48000
    return int.from_bytes(packet[12:16], "little") if packet[:7] == b"\x01vorbis" else 0
