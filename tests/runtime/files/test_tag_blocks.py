"""Tags are found in every container, and only those within the bounds are copied."""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mutagen
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mutagen.flac import FLAC, Picture
from mutagen.mp4 import MP4

from bsmamba2.files.id3_bounds import MAX_PICTURES, MAX_VALUES, Budget
from bsmamba2.files.tag_blocks import open_tags
from bsmamba2.files.tags import read_tags
from support.fixtures import WriteSong
from support.id3 import bomb, frame, tag

ID3_KINDS = ["mp3", "wav", "aiff"]


def with_id3(path: Path, content: bytes) -> Path:
    """Puts a tag into a song: before an MP3, else into a chunk."""
    song = path.read_bytes()
    if path.suffix == ".mp3":
        path.write_bytes(content + song)
        return path
    number = ">I" if path.suffix == ".aiff" else "<I"
    chunk = b"ID3 " + struct.pack(number, len(content)) + content + bytes(len(content) % 2)
    size = struct.pack(number, len(song) - 8 + len(chunk))
    path.write_bytes(song[:4] + size + song[8:] + chunk)
    return path


@pytest.mark.parametrize("kind", ID3_KINDS)
def test_a_bomb_in_any_container_is_left_out_with_a_warning(
    song: WriteSong, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = with_id3(song(f"song.{kind}", samples=5000), bomb(3))
    tags = read_tags(path)
    assert (tags.fields, tags.pictures) == ({"title": ["ok"]}, [])
    assert caplog.messages == [
        f"20 tags of song.{kind} are damaged or too large: its stems do not have them"
    ]


@pytest.mark.parametrize("kind", ID3_KINDS)
def test_the_same_frames_are_found_as_by_the_library(song: WriteSong, kind: str) -> None:
    path = song(f"song.{kind}", samples=5000)
    with_id3(path, tag(frame(b"TIT2", b"\3x"), frame(b"APIC", b"\3image/png\0\3\0data")))
    assert dict(open_tags(path, Budget())) == dict(mutagen.File(path).tags)


def test_a_tag_of_version_1_at_the_end_of_an_mp3_is_read(song: WriteSong) -> None:
    path = song("song.mp3", samples=5000)
    path.write_bytes(path.read_bytes() + (b"TAG" + b"Title").ljust(127, b"\0") + b"\x0c")
    assert read_tags(path).fields["title"] == ["Title"]


def test_more_comments_and_pictures_than_the_bounds_are_left_out(song: WriteSong) -> None:
    path = song("song.flac", samples=5000)
    file = FLAC(path)
    file["a"] = [str(k) for k in range(MAX_VALUES + 9)]
    for _ in range(MAX_PICTURES + 3):
        file.add_picture(Picture())
    file.save()
    budget = Budget()
    found = open_tags(path, budget)
    assert (len(found["a"]), len(found.pictures), budget.left_out) == (MAX_VALUES, MAX_PICTURES, 12)


@pytest.mark.parametrize("kind", ["flac", "ogg"])
def test_a_comment_of_a_stated_gigabyte_is_not_allocated(tmp_path: Path, kind: str) -> None:
    content, path = CORPUS[kind](), tmp_path / f"song.{kind}"
    path.write_bytes(content.replace(b"\x07\0\0\0title", b"\xff\xff\xff\x7ftitle"))
    assert not open_tags(path, Budget()).tags


def test_a_damaged_picture_is_dropped_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "song.flac"
    path.write_bytes(flac().replace(b"\x84", b"\x04") + b"\x86\0\0\x08\0\0\0\0\xff\xff\xff\xff")
    assert (read_tags(path).fields, read_tags(path).pictures) == ({"title": ["x"]}, [])
    assert "a picture of song.flac is damaged" in caplog.text


@pytest.mark.parametrize(
    ("first", "second"),
    [(b"OpusHead", b"OpusTags"), (b"Speex   ", b""), (b"\x7fFLAC", b"\x84\0\0\x13")],
)
def test_comments_in_every_kind_of_ogg_are_found(
    tmp_path: Path, first: bytes, second: bytes
) -> None:
    path = tmp_path / "song.ogg"
    path.write_bytes(ogg(first, second))
    assert read_tags(path).fields == {"title": ["x"]}


def mp4(*items: bytes) -> bytes:
    meta = atom(b"meta", bytes(4) + atom(b"ilst", *items))
    return atom(b"ftyp", b"M4A \0\0\0\0") + atom(b"moov", atom(b"udta", meta))


def atom(name: bytes, *content: bytes) -> bytes:
    whole = b"".join(content)
    return (8 + len(whole)).to_bytes(4, "big") + name + whole


def value(data: bytes, kind: int = 1) -> bytes:
    return atom(b"data", kind.to_bytes(4, "big"), bytes(4), data)


def test_the_items_of_mp4_are_found_as_by_the_library(tmp_path: Path) -> None:
    path = tmp_path / "song.m4a"
    items = atom(b"\xa9nam", value(b"T")), atom(b"trkn", value(bytes([0, 0, 0, 3, 0, 12, 0, 0]), 0))
    path.write_bytes(mp4(*items, atom(b"covr", value(b"\x89PNG", 14))))
    library: Any = MP4(path)
    assert dict(open_tags(path, Budget()).tags) == dict(library.tags)
    assert read_tags(path).fields == {"title": ["T"], "tracknumber": ["3/12"]}


def test_more_values_in_mp4_than_the_bound_are_left_out(tmp_path: Path) -> None:
    path, budget = tmp_path / "song.m4a", Budget()
    path.write_bytes(mp4(atom(b"\xa9nam", value(b"T")), atom(b"\xa9cmt", value(b"x") * 5000)))
    assert set(open_tags(path, budget).tags) == {"\xa9nam"}
    assert budget.left_out == 1


def test_a_song_without_tags_has_none(song: WriteSong, tmp_path: Path) -> None:
    for kind in (*ID3_KINDS, "w64"):
        assert not read_tags(song(f"song.{kind}", samples=5000))
    (tmp_path / "empty").touch()
    assert open_tags(tmp_path / "empty", Budget()) is None


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp3")
    assert not read_tags(tmp_path / "pipe.mp3")


@settings(max_examples=100)
@given(data=st.data(), kind=st.sampled_from(["flac", "ogg", "wav", "mp3", "mp4"]))
def test_mutated_tags_are_read_or_refused(
    data: st.DataObject, kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(CORPUS[kind]())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / f"mutated.{kind}"
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    read_tags(path)


def comments() -> bytes:
    line = b"title=x"
    return bytes(4) + (1).to_bytes(4, "little") + len(line).to_bytes(4, "little") + line


def ogg(first: bytes = b"\x01vorbis", second: bytes = b"\x03vorbis") -> bytes:
    packets = [first + bytes(23), second + comments() + b"\1"]
    head = b"OggS\0\0" + bytes(8) + b"seri" + bytes(8) + b"\1"
    return b"".join(head + bytes([len(packet)]) + packet for packet in packets)


def flac() -> bytes:
    info = (4096).to_bytes(2, "big") * 2 + bytes(6) + b"\x0a\xc4\x42\xf0" + bytes(20)
    block = comments()
    return b"fLaC\0\0\0\x22" + info + b"\x84" + len(block).to_bytes(3, "big") + block


def wav() -> bytes:
    content = tag(frame(b"TIT2", b"\3x"))
    chunk = b"id3 " + len(content).to_bytes(4, "little") + content
    return b"RIFF" + (4 + len(chunk)).to_bytes(4, "little") + b"WAVE" + chunk


CORPUS: dict[str, Callable[[], bytes]] = {
    "flac": flac,
    "ogg": ogg,
    "wav": wav,
    "mp3": lambda: tag(frame(b"TIT2", b"\3x"), frame(b"TPE1", b"\3y", flags=9)),
    "mp4": lambda: mp4(atom(b"\xa9nam", value(b"T"))),
}


@pytest.mark.parametrize("kind", CORPUS)
def test_the_smallest_file_of_each_kind_has_its_title(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"song.{kind}"
    path.write_bytes(CORPUS[kind]())
    assert read_tags(path).fields["title"] in (["x"], ["T"])
