"""Tags of APE (WavPack, MP3) and ASF (WMA) reach the stems, within bounds."""

from __future__ import annotations

from pathlib import Path

import pytest
from mutagen.apev2 import APEBinaryValue, APEv2
from mutagen.asf import ASF, ASFByteArrayAttribute  # type: ignore[attr-defined]
from mutagen.id3 import TIT2
from mutagen.mp3 import MP3

from bsmamba2 import Separator
from bsmamba2.files.id3_bounds import Budget
from bsmamba2.files.tag_blocks import open_tags
from bsmamba2.files.tags import read_tags
from support.engines import Stubs
from support.fixtures import WriteSong

PICTURE = b"\x89PNG picture"
FIELDS = {"title": ["Ångström"], "artist": ["One", "Two"], "tracknumber": ["3/12"]}
FIELDS |= {"albumartist": ["All"], "date": ["1999"]}


def add_ape(path: Path) -> None:
    tags = APEv2()
    tags["Title"], tags["Artist"], tags["Track"] = "Ångström", ["One", "Two"], "3/12"
    tags["Album Artist"], tags["Year"], tags["Mood"] = "All", "1999", "blue"
    tags["REPLAYGAIN_TRACK_GAIN"] = "-3 dB"
    tags["Cover Art (Front)"] = APEBinaryValue(b"front.png\0" + PICTURE)
    tags.save(path)


def asf(path: Path) -> Path:
    """A header of ASF as mutagen writes it, with every kind of object that holds tags."""
    empty = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c") + (30).to_bytes(8, "little")
    path.write_bytes(empty + bytes(4) + b"\x01\x02" + bytes(50))
    file = ASF(path)
    file["Title"], file["Author"], file["WM/TrackNumber"] = "Ångström", ["One", "Two"], "3/12"
    file["WM/AlbumArtist"], file["WM/Year"], file["WM/Unknown"] = "All", "1999", "x"
    mime = "image/png".encode("utf-16-le") + b"\0\0" + b"\0\0"
    picture = b"\x03" + len(PICTURE).to_bytes(4, "little") + mime + PICTURE
    file["WM/Picture"] = ASFByteArrayAttribute(picture)
    file.save()
    return path


def pictures(path: Path) -> list[tuple[int, str, bytes]]:
    return [(p.type, p.mime, p.data) for p in read_tags(path).pictures]


def test_the_tags_of_a_wma_are_read(tmp_path: Path) -> None:
    path = asf(tmp_path / "song.wma")
    assert read_tags(path).fields == FIELDS
    assert pictures(path) == [(3, "image/png", PICTURE)]


@pytest.mark.parametrize("version_1", [b"", b"TAG" + b"cut off".ljust(125, b"\0")])
def test_ape_tags_of_an_mp3_reach_its_stems(stub: Stubs, song: WriteSong, version_1: bytes) -> None:
    path = song("song.mp3", samples=5000)
    add_ape(path)
    path.write_bytes(path.read_bytes() + version_1)
    stem = Separator(stub.half()).separate_file(path, format="flac")["vocals"]
    assert read_tags(stem).fields == FIELDS | {"mood": ["blue"]}
    assert pictures(stem) == [(3, "image/png", PICTURE)]


def test_id3_counts_before_ape(song: WriteSong) -> None:
    path = song("song.mp3", samples=5000)
    add_ape(path)
    file = MP3(path)
    file.add_tags()
    file["TIT2"] = TIT2(encoding=3, text=["newer"])
    file.save()
    assert read_tags(path).fields == {"title": ["newer"]}


def test_more_items_of_ape_than_the_bound_are_left_out(tmp_path: Path) -> None:
    tags, budget = APEv2(), Budget(frames=5)
    tags.update({f"key {k}": "x" for k in range(9)})
    tags.save(tmp_path / "song.wv")
    assert len(open_tags(tmp_path / "song.wv", budget).fields) == 5
    assert budget.left_out == 4


@pytest.mark.parametrize("count", [0, 1, 2**32 - 1])
def test_a_false_number_of_items_costs_nothing(tmp_path: Path, count: int) -> None:
    path = tmp_path / "song.wv"
    APEv2().save(path)
    add_ape(path)
    content = bytearray(path.read_bytes())
    content[-16:-12] = count.to_bytes(4, "little")
    path.write_bytes(content)
    assert set(read_tags(path).fields) <= {*FIELDS, "mood"}


@pytest.mark.parametrize("kind", ["ape", "asf"])
def test_damaged_tags_are_a_warning(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "song.wv"
    if kind == "ape":
        path.write_bytes(bytes(100))
        add_ape(path)
    content = path.read_bytes() if kind == "ape" else asf(path).read_bytes()
    for at in range(0, len(content), 7):
        path.write_bytes(content[:at] + b"\xff\xff\xff\xff" + content[at + 4 :])
        read_tags(path)


def test_an_object_of_asf_beyond_the_bound_is_left_out(tmp_path: Path) -> None:
    budget = Budget(bytes=100)  # the first object has title and artist, the second the others
    assert set(open_tags(asf(tmp_path / "song.wma"), budget).fields) == {"title", "artist"}
    assert budget.left_out == 1
