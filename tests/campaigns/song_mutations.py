"""Mutations of songs that know their structure: chunks, pages, frames, boxes, blocks and tags.

Random bytes rarely get past a decoder's first check. These change one part of a valid song and keep
the rest consistent: a page of Ogg gets a new checksum, a chunk that grows moves what follows it.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Mapping

from bsmamba2.files.ogg_pages import page_checksum

EXTREMES = (0, 1, 2, 3, 7, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
FRAMES = (b"APIC", b"TXXX", b"COMM", b"TIT2", b"GEOB", b"CHAP", b"USLT", b"RVA2")


def mutate_song(content: bytes, others: Mapping[str, bytes], draw: random.Random) -> bytes:
    """Applies one to three mutations that fit the song; ``others`` are songs to join with it."""
    for _ in range(draw.choice((1, 1, 2, 3))):
        change = draw.choice([join, cut, with_id3, *changes_of(content)])
        content = change(content, others, draw)
    return content


Change = Callable[[bytes, Mapping[str, bytes], random.Random], bytes]


def changes_of(content: bytes) -> list[Change]:
    """Returns the mutations for this kind of file."""
    start = content[:4]
    if start == b"OggS":
        return [in_page] * 3
    if start in (b"RIFF", b"RF64", b"FORM"):
        return [in_chunk] * 3
    if start == b"fLaC":
        return [in_block] * 3
    if content[4:8] == b"ftyp":
        return [in_box] * 3
    return [in_frames] * 3


def join(content: bytes, others: Mapping[str, bytes], draw: random.Random) -> bytes:
    """Joins songs, as ``cat`` does, sometimes with junk or a cut between them."""
    other = draw.choice([content, *others.values()])
    between = draw.choice([b"", b"", draw.randbytes(draw.randrange(1, 300)), b"TAG" + bytes(125)])
    kept = content[: draw.randrange(1, len(content) + 1)] if draw.random() < 0.2 else content
    return kept + between + other


def cut(content: bytes, others: Mapping[str, bytes], draw: random.Random) -> bytes:
    """Removes the end, or a piece in the middle."""
    at = draw.randrange(1, len(content) + 1)
    if draw.random() < 0.5:
        return content[:at]
    return content[:at] + content[at + draw.randrange(1, 5000) :]


def with_id3(content: bytes, others: Mapping[str, bytes], draw: random.Random) -> bytes:
    """Puts an ID3 tag in front: frames of wrong, huge or compressed sizes."""
    frames = b""
    for _ in range(draw.randrange(1, 6)):
        body, flags = draw.randbytes(draw.randrange(0, 60)), 0
        if draw.random() < 0.4:
            body = len(body).to_bytes(4) + zlib.compress(bytes(draw.choice((100, 200_000))))
            flags = 0x0009
        size = draw.choice([len(body), len(body), draw.choice(EXTREMES)])
        packed = bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
        frames += draw.choice(FRAMES) + packed + flags.to_bytes(2) + body
    size = draw.choice([len(frames), len(frames), draw.choice(EXTREMES)])
    packed = bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    return (
        b"ID3"
        + bytes([draw.choice((2, 3, 4, 9)), 0, draw.choice((0, 0, 0x80, 0x10))])
        + (packed + frames + content)
    )


def in_page(content: bytes, others: Mapping[str, bytes], draw: random.Random) -> bytes:
    """Drops, repeats or swaps pages, or changes a field of one, with a right checksum."""
    starts = [at for at in range(len(content)) if content[at : at + 4] == b"OggS"]
    pages = [content[a:b] for a, b in zip(starts, [*starts[1:], len(content)], strict=True)]
    if not pages:
        return content
    at, change = draw.randrange(len(pages)), draw.randrange(6)
    if change == 0:
        del pages[at]
    elif change == 1:
        pages.insert(at, draw.choice(pages))
    elif change == 2:
        draw.shuffle(pages)
    elif len(pages[at]) >= 28:
        page = bytearray(pages[at])
        if change == 3:
            page[5] = draw.choice((0, 1, 2, 4, 6, 7))
        elif change == 4:
            page[6:14] = draw.choice((0, 1, 2**62, 2**64 - 1, 48000)).to_bytes(8, "little")
        else:
            where = draw.randrange(27, len(page))
            page[where] = draw.randrange(256)
        page[22:26] = page_checksum(bytes(page))
        pages[at] = bytes(page)
    return content[: starts[0]] + b"".join(pages)


def in_chunk(content: bytes, others: Mapping[str, bytes], draw: random.Random) -> bytes:
    """Changes the size of a chunk or a field of it, or drops, repeats or adds one."""
    order = "big" if content[:4] == b"FORM" else "little"
    chunks: list[tuple[int, int]] = []
    at = 12
    while at + 8 <= len(content) and len(chunks) < 50:
        size = int.from_bytes(content[at + 4 : at + 8], order)  # type: ignore[arg-type]
        chunks.append((at, min(len(content), at + 8 + size + size % 2)))
        at = max(at + 8, chunks[-1][1])
    if not chunks:
        return content
    start, end = draw.choice(chunks)
    change = draw.randrange(5)
    if change == 0:
        size = draw.choice([*EXTREMES, len(content), end - start])
        field = size.to_bytes(4, order)  # type: ignore[arg-type]
        return content[: start + 4] + field + content[start + 8 :]
    if change == 1:
        return content[:start] + content[end:]
    if change == 2:
        return content[:end] + content[start:end] + content[end:]
    if change == 3:
        id = draw.choice((b"LIST", b"bext", b"id3 ", b"PEAK", b"fact", b"ds64", b"cue ", b"NAME"))
        body = b"INFO" + draw.randbytes(draw.randrange(0, 700))
        added = id + draw.choice([len(body), *EXTREMES]).to_bytes(4, order) + body  # type: ignore[arg-type]
        return content[:start] + added + content[start:]
    where = draw.randrange(start, max(start + 1, min(end, start + 48)))
    return content[:where] + bytes([draw.randrange(256)]) + content[where + 1 :]


def in_block(content: bytes, others: Mapping[str, bytes], draw: random.Random) -> bytes:
    """Changes the length that a FLAC file states, or adds a block of comments or a picture."""
    data = bytearray(content)
    if draw.random() < 0.5 and len(data) > 26:
        samples = draw.choice((0, 1, 2**36 - 1, 10**6))
        data[21] = data[21] & 0xF0 | samples >> 32
        data[22:26] = (samples & 0xFFFFFFFF).to_bytes(4)
        return bytes(data)
    count = draw.choice(EXTREMES)
    body = draw.choice((count.to_bytes(4, "little"), count.to_bytes(4))) + draw.randbytes(40)
    size = draw.choice([len(body), draw.choice(EXTREMES) & 0xFFFFFF])
    return (
        content[:42]
        + bytes([draw.choice((1, 2, 3, 4, 5, 6, 99))])
        + (size.to_bytes(3) + body + content[42:])
    )


def in_box(content: bytes, others: Mapping[str, bytes], draw: random.Random) -> bytes:
    """Changes the size of a box, or moves, drops or repeats it."""
    boxes: list[bytes] = []
    at = 0
    while at + 8 <= len(content) and len(boxes) < 50:
        size = max(8, int.from_bytes(content[at : at + 4]))
        boxes.append(content[at : at + size])
        at += size
    where, change = draw.randrange(len(boxes)), draw.randrange(4)
    if change == 0:
        boxes[where] = draw.choice(EXTREMES).to_bytes(4) + boxes[where][4:]
    elif change == 1:
        draw.shuffle(boxes)
    elif change == 2:
        boxes.insert(where, boxes[where])
    else:
        inside = draw.randrange(8, max(9, len(boxes[where])))
        boxes[where] = boxes[where][:inside] + draw.randbytes(4) + boxes[where][inside + 4 :]
    return b"".join(boxes)


def in_frames(content: bytes, others: Mapping[str, bytes], draw: random.Random) -> bytes:
    """Changes a header of a frame or the number of frames that an MP3 states, or moves a piece."""
    starts = [at for at in range(len(content) - 1) if content[at : at + 2] > b"\xff\xe0"]
    change = draw.randrange(3)
    xing = max(content.find(b"Xing"), content.find(b"Info"))
    if change == 0 and xing >= 0:
        count = draw.choice(EXTREMES).to_bytes(4)
        return content[: xing + 8] + count + content[xing + 12 :]
    if change == 1 and starts:
        at = draw.choice(starts) + draw.randrange(4)
        return content[:at] + bytes([draw.randrange(256)]) + content[at + 1 :]
    at, to = sorted(draw.randrange(len(content) + 1) for _ in range(2))
    return content[:at] + content[to:] + content[at:to]
