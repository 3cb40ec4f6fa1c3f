"""What the bytes of a song state about its length, independent of any decoder.

Decoders take the end of a file for the end of the song. They also stop after the first of several
files that were joined together, and libsndfile stops at a change of rate or channels. So the
structure of a file is read before it is decoded: :func:`read_structure` says whether bytes are
missing, whether libsndfile would read all of it, and where joined files start.

Songs are untrusted: headers are read one by one, and every loop moves forward in the file.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, BinaryIO, cast

from bsmamba2.files.chunks import LAYOUTS, ChunkFile
from bsmamba2.files.joined_files import MAX_FILES, Window
from bsmamba2.files.mpeg_frames import Frames, count_frames, find_first_frame, tag_bytes
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
_CLUSTER = bytes.fromhex("1f43b675")
_TOP = (_EBML, _SEGMENT)
_LONG_IDS = "114d9b74 1549a966 1654ae6b 1c53bb6b 1254c367 1043a770 1941a469"
_SHORT_IDS = "ec bf e7 a7 ab a3 a0"
_INSIDE = (_CLUSTER, *map(bytes.fromhex, f"{_LONG_IDS} {_SHORT_IDS}".split()))
"""The elements of a segment and of a cluster."""
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
    samples: int | None = None
    """The number of samples, where libsndfile would read what follows them as samples too."""
    starts: tuple[int, ...] = (0,)
    """Where the files start that were joined to this one."""
    next_start: int | None = None
    """Where another file follows the first one; None if none does."""


def read_structure(path: Path) -> Structure:
    """Reads the structure of a song; that of an unknown kind is empty.

    Raises:
        OSError: the file cannot be read.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        found = [_read_one(file, size)]
        starts = [0]
        while (following := found[-1].next_start) and len(starts) < MAX_FILES:
            starts.append(starts[-1] + following)
            found.append(
                _read_one(cast("BinaryIO", Window(file, starts[-1], size)), size - starts[-1])
            )
    if len(found) == 1:
        return found[0]
    if found[-1].next_start:
        return Structure(missing=f"more than {MAX_FILES} files are joined in it")
    lengths = [one.seconds for one in found if one.seconds is not None]
    return Structure(
        missing=next((one.missing for one in found if one.missing), ""),
        doubt=found[-1].doubt,
        beyond_libsndfile=f"{len(found)} files are joined in it, and libsndfile reads the first",
        seconds=sum(lengths) if len(lengths) == len(found) else None,
        starts=tuple(starts),
    )


def _read_one(file: BinaryIO, size: int) -> Structure:
    """Reads the structure of the file that starts at 0."""
    file.seek(0)
    start = file.read(16)
    if start[:4] in _OTHERS:
        return Structure(next_start=_next_start(file, size, start[:4]))
    if start[:4] == b"OggS":
        return _ogg(file, size)
    if start[:4] in (b".snd", b"dns."):
        return _au(file, start, size)
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


def _next_start(file: BinaryIO, size: int, kind: bytes) -> int | None:
    """Returns where a second file of TTA or WavPack starts; None if none does.

    That of FLAC is found when the song is read: it takes reading all of it.
    """
    if kind == b"TTA1":
        end = _tta_end(file)
        return _if_starts(file, end + tag_bytes(file, end), kind)
    return _next_wavpack(file) if kind == b"wvpk" else None


def _if_starts(file: BinaryIO, at: int, start: bytes) -> int | None:
    """Returns a place if these bytes are there."""
    file.seek(at)
    return at if file.read(len(start)) == start else None


def _tta_end(file: BinaryIO) -> int:
    """Returns where the last frame ends: the header counts samples, and a table has the sizes."""
    file.seek(0)
    header = file.read(22)
    rate, samples = (int.from_bytes(header[at : at + 4], "little") for at in (10, 14))
    frames = -(-samples // max(1, 256 * rate // 245))
    if frames > MAX_HEADERS:
        return 0
    table = file.read(4 * frames)
    sizes = (int.from_bytes(table[at : at + 4], "little") for at in range(0, len(table), 4))
    return 22 + 4 * frames + 4 + sum(sizes)


def _next_wavpack(file: BinaryIO) -> int | None:
    """Returns the first block, after others, that starts at sample 0 again."""
    at, has_moved = 0, False
    for _ in range(MAX_HEADERS):
        file.seek(at)
        head = file.read(32)
        if len(head) < 32 or head[:4] != b"wvpk":
            if tag := tag_bytes(file, at):
                at += tag
                continue
            return None
        has_samples, index = any(head[20:24]), head[10:11] + head[16:20]
        if has_samples and not any(index) and head[25] & 8 and has_moved:  # 8: first of its time
            return at
        has_moved |= has_samples and (any(index) or bool(head[25] & 0x10))  # 0x10: last of it
        at += 8 + int.from_bytes(head[4:8], "little")
    return None


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
    end = file.samples.start + file.samples.size
    found = _sized("samples", end, file.size)
    header = file.layout.id_bytes + file.layout.size_bytes
    following = (chunk.start - header for chunk in file.chunks if chunk.id in LAYOUTS)
    return replace(found, next_start=next(following, None), samples=_w64_samples(file))


def _w64_samples(file: ChunkFile) -> int | None:
    """Returns the number of samples in a W64 file, of which libsndfile reads the rest too."""
    format = file.find(b"fmt ")
    if file.kind != b"riff" or file.samples is None or format is None:
        return None
    frame_bytes = int.from_bytes(file.read(format, 14)[12:], "little")
    return file.samples.size // frame_bytes if frame_bytes else None


def _au(file: BinaryIO, start: bytes, size: int) -> Structure:
    order = "big" if start[:4] == b".snd" else "little"
    first, samples = (int.from_bytes(start[at : at + 4], order) for at in (4, 8))  # type: ignore[arg-type]
    if samples == 0xFFFFFFFF:
        return Structure()
    end = first + samples
    return replace(_sized("samples", end, size), next_start=_if_starts(file, end, start[:4]))


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
            if is_broadcast or not stated:
                return Structure()
            following = _if_starts(file, min(stated, size), _ASF)
            return replace(_sized("last packet", stated, size), next_start=following)
        if len(found) < 24 or not 24 <= header <= size:
            break
        at += header
    return Structure()


def _matroska(file: BinaryIO, size: int) -> Structure:
    """Walks the elements; in a live stream, which states no sizes, also those of the segment."""
    at, is_live = 0, False
    for _ in range(MAX_HEADERS):
        file.seek(at)
        head = file.read(12)
        if at and head[:4] == _EBML:
            return Structure(next_start=at)
        id_width = 9 - head[0].bit_length() if head else 9
        width = 9 - head[id_width].bit_length() if len(head) > id_width else 9
        id, number = head[:id_width], head[id_width : id_width + width]
        if width > 8 or len(number) < width or not (id in _TOP or (is_live and id in _INSIDE)):
            break
        most = (1 << 7 * width) - 1
        content = int.from_bytes(number) & most
        at += id_width + width
        if content == most:
            is_live = True  # the elements inside follow
        elif at + content > size + SLACK_BYTES:
            return _sized("segment" if id == _SEGMENT else "last block", at + content, size)
        else:
            at += content
    return Structure()


def _mp4(file: BinaryIO, size: int) -> Structure:
    at, has_movie = 0, False
    for _ in range(MAX_HEADERS):
        file.seek(at)
        head = file.read(16)
        if len(head) < 8 or not head[4:8].isalnum():
            break
        has_movie |= head[4:8] == b"moov"
        if head[4:8] == b"ftyp" and has_movie:
            return Structure(next_start=at)
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
        # Some programs count the header of Xing as a frame too.
        uncounted = 0 if found.is_cut and part is found.parts[-1] else 1
        if part.stated and part.frames < part.stated - uncounted:
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
    at: int = 0
    """The byte of its first page."""
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
                links.append(_Link(set(), at, _ogg_rate(file, at + 27 + head[26])))
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
    starts = (0, *(link.at for link in links[1:]))
    if len(links) > MAX_FILES:
        return Structure(missing=f"it is a chain of more than {MAX_FILES} parts")
    return Structure(doubt=doubt, beyond_libsndfile=beyond, seconds=seconds, starts=starts)


def _ogg_rate(file: BinaryIO, at: int) -> int:
    """Returns the rate of the samples that the pages of a stream count, from its first packet."""
    file.seek(at)
    packet = file.read(16)
    if packet[:8] == b"OpusHead":
        return 48000
    return int.from_bytes(packet[12:16], "little") if packet[:7] == b"\x01vorbis" else 0
