"""Counts the frames of MP3 and AAC (ADTS) files, which state no length of their own.

    ID3 │ Xing: 2 frames │ frame │ frame │ ID3 │ Xing: 3 frames │ frame │ frame │ frame │ TAG
        ╰─────── first part ─────────────╯     ╰────────── second part ─────────────────╯

Each frame states its length, so frames follow each other. A header of Xing, Info or VBRI states how
many there are, and starts a new part where files were joined together; so does another rate or
number of channels. Tags and other bytes between frames are passed over.

Sources: ISO/IEC 11172-3, 13818-3 and 13818-7.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import BinaryIO

SEARCH_BYTES = 1 << 16
"""How far to search for the next frame after bytes that are none."""

HEADER_BYTES = 8

MAX_FRAMES = 1 << 20
"""The most frames that are counted, several hours; of a longer song nothing is said."""

_MPEG_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_KBITS = {  # by (version 1?, layer)
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)


@dataclass(frozen=True)
class Kind:
    """What the frames of a part have in common."""

    codec: str
    """``mp3`` (any layer) or ``aac``."""
    layer: int
    rate: int
    """Hz."""
    channels: int
    """1, or 2 for two or more."""


@dataclass(frozen=True)
class Frame:
    """The header of a frame."""

    kind: Kind
    size: int
    """Bytes with the header."""
    samples: int


@dataclass
class Part:
    """Frames of one kind in a row."""

    kind: Kind
    frames: int = 0
    samples: int = 0
    stated: int | None = None
    """The number of frames that a Xing or VBRI header states; 0 or None if none does."""

    @property
    def seconds(self) -> float:
        return self.samples / self.kind.rate


@dataclass
class Frames:
    """The frames of a file."""

    parts: list[Part] = field(default_factory=list)
    is_cut: bool = False
    """Whether the file ends in the middle of a frame."""


def find_first_frame(file: BinaryIO, size: int) -> int | None:
    """Returns where the first frame starts: after tags, and before two more frames of its kind.

    Returns None if the file has no frames.
    """
    at = 0
    while tag := tag_bytes(file, at):
        at += tag
    return _search(file, at, size, in_a_row=3)


def count_frames(file: BinaryIO, size: int, first: int) -> Frames:
    """Counts the frames of a file from the first one; without parts if there are too many."""
    found, at = Frames(), first
    for _ in range(MAX_FRAMES):
        frame = _frame(_read(file, at, HEADER_BYTES))
        changes = not found.parts or frame is None or frame.kind != found.parts[-1].kind
        if frame is None or (changes and found.parts and not _is_row(file, at, size, 2)):
            tag = tag_bytes(file, at)
            if _read(file, at, HEADER_BYTES)[:1] == b"\xff" and size - at < HEADER_BYTES:
                found.is_cut = True  # within a header
                break
            after = at + tag if tag else _search(file, at + 1, size, in_a_row=2)
            if after is None:
                break
            at = after
            continue
        if at + frame.size > size:
            found.is_cut = True
            break
        stated = _stated_frames(file, at, frame) if frame.kind.layer == 3 else None
        if changes or stated is not None:
            found.parts.append(Part(frame.kind, stated=stated))
        if stated is None:
            found.parts[-1].frames += 1
            found.parts[-1].samples += frame.samples
        at += frame.size
    else:
        return Frames()
    return found


def _search(file: BinaryIO, at: int, size: int, in_a_row: int) -> int | None:
    """Returns where the next frames of one kind follow each other, within SEARCH_BYTES."""
    window = _read(file, at, SEARCH_BYTES)
    offset = window.find(b"\xff")
    while offset >= 0:
        if _frame(window[offset : offset + 8]) and _is_row(file, at + offset, size, in_a_row):
            return at + offset
        offset = window.find(b"\xff", offset + 1)
    return None


def _is_row(file: BinaryIO, at: int, size: int, count: int) -> bool:
    """Whether so many frames of one kind follow each other, or fewer and then the end or a tag."""
    first = frame = _frame(_read(file, at, HEADER_BYTES))
    for _ in range(count - 1):
        if frame is None or first is None or frame.kind != first.kind:
            return False
        at += frame.size
        if at == size or tag_bytes(file, at):
            return True
        frame = _frame(_read(file, at, HEADER_BYTES))
    return frame is not None and first is not None and frame.kind == first.kind


def _frame(header: bytes) -> Frame | None:
    """Reads a header of 8 bytes."""
    if len(header) < 8 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    if header[1] & 0xF6 == 0xF0:
        return _aac_frame(header)
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    kbits_index, rate_index, padding = header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    if version == 1 or layer == 4 or rate_index == 3 or not 0 < kbits_index < 15:
        return None  # an index of 0 is a bit rate that the header does not state
    rate = _MPEG_RATES[version][rate_index]
    bits = 1000 * _KBITS[version == 3, layer][kbits_index - 1]
    samples = 384 if layer == 1 else 576 if layer == 3 and version != 3 else 1152
    unit = 4 if layer == 1 else 1
    size = (samples // 8 * bits // rate // unit + padding) * unit
    channels = 1 if header[3] >> 6 == 3 else 2
    return Frame(Kind("mp3", layer, rate, channels), size, samples)


def _aac_frame(header: bytes) -> Frame | None:
    rate_index = header[2] >> 2 & 15
    size = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
    if rate_index >= len(_AAC_RATES) or size < 7:
        return None
    channels = 1 if (header[2] & 1) << 2 | header[3] >> 6 == 1 else 2
    blocks = (header[6] & 3) + 1
    return Frame(Kind("aac", 0, _AAC_RATES[rate_index], channels), size, 1024 * blocks)


def _stated_frames(file: BinaryIO, at: int, frame: Frame) -> int | None:
    """Returns how many frames a Xing, Info or VBRI header states, 0 if it does not; else None."""
    content = _read(file, at, 64)
    side = 4 + ((17, 32) if frame.samples == 1152 else (9, 17))[frame.kind.channels - 1]
    if content[side : side + 4] in (b"Xing", b"Info"):
        states_frames = content[side + 7 : side + 8] > b"\0" and content[side + 7] & 1
        return int.from_bytes(content[side + 8 : side + 12]) if states_frames else 0
    return int.from_bytes(content[50:54]) if content[36:40] == b"VBRI" else None


def tag_bytes(file: BinaryIO, at: int) -> int:
    """Returns the length of a tag (ID3v2, ID3v1, APE) at this place; 0 if there is none."""
    start = _read(file, at, 32)
    if start[:3] == b"ID3" and len(start) >= 10 and max(start[6:10]) < 128:
        footer = 10 if start[5] & 0x10 else 0
        size = start[6] << 21 | start[7] << 14 | start[8] << 7 | start[9]
        return 10 + size + footer
    if start[:8] == b"APETAGEX" and len(start) == 32:
        return 32 + int.from_bytes(start[12:16], "little")
    return 128 if start[:3] == b"TAG" else 0


def _read(file: BinaryIO, at: int, count: int) -> bytes:
    file.seek(at)
    return file.read(count)
