"""A tag is rewritten with the same frames, plain and few; what a bomb stands for is never built."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutagen.id3 import (
    APIC,
    CHAP,
    COMM,
    CTOC,
    GEOB,
    ID3,
    TALB,
    TIT2,
    TPE1,
    TXXX,
    USLT,
    CTOCFlags,
    Frame,
)

from bsmamba2.files.id3_bounds import MAX_FRAMES, MAX_PICTURES, MAX_VALUES, Budget, bounded_id3
from support.id3 import bomb, frame, packed, syncsafe, tag


def read(content: bytes) -> dict[str, Any]:
    """Reads a tag through the bounds."""
    return dict(ID3(io.BytesIO(bounded_id3(content, Budget()))))


def saved(*frames: Frame, version: int = 4) -> bytes:
    id3, file = ID3(), io.BytesIO()
    for one in frames:
        id3.add(one)
    if version == 3:
        id3.update_to_v23()
    id3.save(file, v2_version=version)
    return file.getvalue()


FRAMES = (
    TIT2(encoding=3, text=["Ångström"]),
    TPE1(encoding=1, text=["One", "Two"]),
    TALB(encoding=0, text=["A" * 3000]),
    TXXX(encoding=3, desc="mood", text=["blue"]),
    COMM(encoding=3, lang="eng", desc="a", text=["first"]),
    COMM(encoding=3, lang="eng", desc="b", text=["second"]),
    USLT(encoding=3, lang="eng", desc="", text="la\nla"),
    APIC(encoding=3, mime="image/png", type=3, desc="front", data=bytes(range(256)) * 99),
    GEOB(encoding=3, mime="x", filename="f", desc="d", data=b"\xff\x00\xff\xe0"),
    CHAP(element_id="c", start_time=0, end_time=9, sub_frames=[TIT2(encoding=3, text=["Part"])]),
    CTOC(element_id="t", flags=CTOCFlags.ORDERED, child_element_ids=["c"], sub_frames=[]),
)


@pytest.mark.parametrize("version", [3, 4])
def test_every_ordinary_frame_is_kept_unchanged(version: int) -> None:
    content, budget = saved(*FRAMES, version=version), Budget()
    assert read(content) == dict(ID3(io.BytesIO(content)))
    bounded_id3(content, budget)
    assert budget.left_out == 0


def test_the_short_frames_of_version_2_are_kept() -> None:
    content = tag(b"TT2\0\0\x03\0Hi", b"TP1\0\0\x04\0You", version=2)
    assert {name: value.text for name, value in read(content).items()} == {
        "TIT2": ["Hi"],
        "TPE1": ["You"],
    }


@pytest.mark.parametrize("version", [3, 4])
def test_a_compressed_frame_is_unpacked(version: int) -> None:
    content = tag(packed(b"TIT2", b"\3" + b"la " * 99, version), version=version)
    assert read(content)["TIT2"].text == ["la " * 99]


def test_an_unsynchronised_tag_is_read() -> None:
    content = tag(frame(b"TIT2", b"\0a\xff\0b", 3), version=3, flags=0x80)
    assert read(content)["TIT2"].text == ["a\xffb"]


def test_an_extended_header_is_skipped() -> None:
    content = tag(b"\0\0\0\6" + bytes(6), frame(b"TIT2", b"\3x", 3), version=3, flags=0x40)
    assert read(content)["TIT2"].text == ["x"]


def test_plain_sizes_in_version_4_are_read_as_itunes_wrote_them() -> None:
    long = b"TIT2" + (300).to_bytes(4, "big") + b"\0\0" + b"\3" + b"x" * 299
    assert read(tag(long, frame(b"TPE1", b"\3y")))["TPE1"].text == ["y"]


@pytest.mark.parametrize("version", [3, 4])
def test_a_bomb_of_compressed_frames_takes_little_memory(version: int) -> None:
    content, budget = bomb(version), Budget()
    tracemalloc.start()
    clean = bounded_id3(content, budget)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20
    assert list(ID3(io.BytesIO(clean))) == ["TIT2"]
    assert budget.left_out == 20


def test_a_bomb_within_a_chapter_is_left_out_too() -> None:
    inner = bomb(4)[10:]
    content = tag(frame(b"CHAP", b"c\0" + bytes(16) + inner), frame(b"TIT2", b"\3ok"))
    assert len(bounded_id3(content, Budget())) < 1000


SLOW: dict[str, Callable[[], bytes]] = {
    "many frames": lambda: tag(*[frame(b"TIT2", b"\3%d" % k) for k in range(80_000)]),
    "many equal pictures": lambda: tag(*[frame(b"APIC", b"\3x\0\0\0d")] * 60_000),
    "many values": lambda: tag(
        *[
            frame(b"TIT2", b"\3" + b"\0".join(b"%d%d" % (k, n) for n in range(90_000)))
            for k in (1, 2)
        ]
    ),
    "many events": lambda: tag(frame(b"ETCO", b"\1" + bytes(900_000))),
    "many lines": lambda: tag(frame(b"SYLT", b"\3eng\1\1\0" + b"a\0\0\0\0\0" * 150_000)),
    "nested chapters": lambda: tag(nested_chapters(2000)),
}


def nested_chapters(depth: int) -> bytes:
    content = frame(b"TIT2", b"\3x")
    for _ in range(depth):
        content = frame(b"CHAP", b"c\0" + bytes(16) + content)
    return content


@pytest.mark.parametrize("make", SLOW.values(), ids=list(SLOW))
def test_the_library_gets_no_more_frames_values_and_pictures_than_the_bounds(
    make: Callable[[], bytes],
) -> None:
    clean = bounded_id3(make(), Budget())
    found = ID3(io.BytesIO(clean))
    assert len(found) <= MAX_FRAMES
    assert len(found.getall("APIC")) <= MAX_PICTURES
    assert sum(len(one.text) for one in found.getall("TIT2")) <= MAX_VALUES
    assert len(clean) < 1 << 20


@given(st.binary(max_size=300), st.sampled_from([2, 3, 4]), st.integers(0, 255))
def test_any_content_becomes_a_tag_that_is_not_larger(
    content: bytes, version: int, flags: int
) -> None:
    whole = b"ID3" + bytes([version, 0, flags]) + syncsafe(len(content)) + content
    clean = bounded_id3(whole, Budget(unpacked=0))
    assert clean[:4] == whole[:4]
    assert len(clean) <= len(whole)
