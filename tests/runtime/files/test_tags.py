"""Tags and pictures are copied between all formats, and never prevent separation."""

from __future__ import annotations

import base64
import errno
from pathlib import Path

import mutagen
import numpy as np
import pytest
import soundfile
from mutagen.flac import FLAC, Picture
from mutagen.id3 import APIC, CHAP, COMM, TIT2, TPE1, TRCK, TXXX, USLT

from bsmamba2 import AudioError, Separator
from bsmamba2.files.tags import Tags, _from_mp4, read_tags
from support.engines import Stubs
from support.fixtures import WriteSong

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
FIELDS = {
    "title": ["Ångström"], "artist": ["One", "Two"], "tracknumber": ["3/12"], "mood": ["blue"],
}  # fmt: skip
KINDS = ["flac", "ogg", "mp3", "wav", "aiff"]


def tag(path: Path) -> None:
    """Gives a song the fields above in its own format, a gain, and a picture."""
    file = mutagen.File(path)
    picture = Picture()
    picture.data, picture.mime, picture.type = PNG, "image/png", 3
    if isinstance(file, FLAC):
        file.update(FIELDS | {"replaygain_track_gain": ["-3 dB"]})
        file.add_picture(picture)
    elif path.suffix == ".ogg":
        file.update(FIELDS | {"replaygain_track_gain": ["-3 dB"]})
        file["metadata_block_picture"] = [base64.b64encode(picture.write()).decode()]
    else:
        if file.tags is None:
            file.add_tags()
        file.tags.add(TIT2(encoding=3, text=FIELDS["title"]))
        file.tags.add(TPE1(encoding=3, text=FIELDS["artist"]))
        file.tags.add(TRCK(encoding=3, text=FIELDS["tracknumber"]))
        file.tags.add(TXXX(encoding=3, desc="mood", text=FIELDS["mood"]))
        file.tags.add(TXXX(encoding=3, desc="replaygain_track_gain", text=["-3 dB"]))
        file.tags.add(APIC(encoding=3, mime="image/png", type=3, data=PNG))
    file.save()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("format", KINDS)
def test_tags_and_pictures_are_copied_from_every_format_to_every_format(
    stub: Stubs, song: WriteSong, kind: str, format: str
) -> None:
    path = song(f"song.{kind}", samples=5000)
    tag(path)
    paths = Separator(stub.half()).separate_file(path, format=format, template="{stem}.{ext}")
    for stem in paths.values():
        tags = read_tags(stem)
        assert tags.fields == FIELDS
        assert [(picture.data, picture.mime, picture.type) for picture in tags.pictures] == [
            (PNG, "image/png", 3)
        ]


@pytest.mark.parametrize("format", ["wav", "aiff", "flac"])
def test_tagged_stems_sum_exactly_to_the_song(stub: Stubs, song: WriteSong, format: str) -> None:
    path = song("song.flac", "PCM_16", samples=5000)
    tag(path)
    paths = Separator(stub.lower_half_band()).separate_file(path, format=format)
    total = sum(soundfile.read(stem, dtype="int32")[0] for stem in paths.values())
    np.testing.assert_array_equal(total, soundfile.read(path, dtype="int32")[0])


@pytest.mark.parametrize("format", ["w64", "caf", "au"])
def test_a_format_without_tags_is_written_without_them(
    stub: Stubs, song: WriteSong, format: str
) -> None:
    path = song("song.flac", samples=500)
    tag(path)
    paths = Separator(stub.half()).separate_file(path, format=format)
    assert soundfile.info(paths["vocals"]).frames == 500


def test_lyrics_and_numbers_of_mp4_are_translated() -> None:
    atoms = {"trkn": [(3, 12)], "disk": [(1, 0)], "\xa9nam": ["T"], "\xa9lyr": ["la\nla"]}
    assert _from_mp4(atoms).fields == {
        "title": ["T"], "tracknumber": ["3/12"], "discnumber": ["1"], "lyrics": ["la\nla"],
    }  # fmt: skip


def test_lyrics_of_id3_are_copied_to_flac(stub: Stubs, song: WriteSong) -> None:
    path = song("song.mp3", samples=5000)
    file = mutagen.File(path)
    if file.tags is None:
        file.add_tags()
    file.tags.add(USLT(encoding=3, lang="eng", desc="", text="la\nla"))
    file.save()
    paths = Separator(stub.half()).separate_file(path)
    assert read_tags(paths["vocals"]).fields == {"lyrics": ["la\nla"]}


def test_a_song_with_damaged_tags_is_separated_with_a_warning(
    stub: Stubs, song: WriteSong, caplog: pytest.LogCaptureFixture
) -> None:
    path = song("song.wav", samples=5000)
    tag(path)
    path.write_bytes(path.read_bytes().replace(b"ID3\x04", b"ID3\x09"))  # no such version
    paths = Separator(stub.half()).separate_file(path)
    assert soundfile.info(paths["vocals"]).frames == 5000
    assert [message[:32] for message in caplog.messages] == ["the tags of song.wav are damaged"]


def test_invalid_text_in_a_tag_does_not_prevent_separation(stub: Stubs, song: WriteSong) -> None:
    path = song("song.flac", samples=5000)
    tag(path)
    path.write_bytes(path.read_bytes().replace(b"title=", b"ti\xff\xfee="))
    paths = Separator(stub.half()).separate_file(path)
    assert soundfile.info(paths["vocals"]).frames == 5000


def test_a_disk_that_is_full_when_tags_are_written_leaves_no_stem(
    stub: Stubs, song: WriteSong, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(*_: object) -> None:
        raise mutagen.MutagenError(OSError(errno.ENOSPC, "No space left on device"))

    path = song("song.flac", samples=5000)
    tag(path)
    monkeypatch.setattr(FLAC, "save", fill)
    with pytest.raises(AudioError, match=r"cannot be written \(No space left on device\)"):
        Separator(stub.half()).separate_file(path)
    assert list(path.parent.iterdir()) == [path]


COMMENTS = {
    ("", "eng"): "right", ("iTunNORM", "eng"): " 00000", ("iTunes_CDDB_1", "eng"): "x",
    ("ID3v1 Comment", "eng"): "righ", ("About", "eng"): "wrong",
}  # fmt: skip


@pytest.mark.parametrize("order", [1, -1])
def test_the_comment_without_a_description_is_the_one_among_several(
    stub: Stubs, song: WriteSong, order: int
) -> None:
    path = song("song.mp3", samples=5000)
    file = mutagen.File(path)
    file.add_tags() if file.tags is None else None
    file.tags.add(TXXX(encoding=3, desc="comment", text=["wrong"]))
    for (description, language), text in list(COMMENTS.items())[::order]:
        file.tags.add(COMM(encoding=3, lang=language, desc=description, text=[text]))
    file.save()
    fields = read_tags(Separator(stub.half()).separate_file(path)["vocals"]).fields
    assert fields["comment"] == ["right"]


@pytest.mark.parametrize("format", ["flac", "mp3", "ogg"])
def test_a_damaged_picture_is_dropped_and_all_other_tags_are_kept(
    stub: Stubs, song: WriteSong, caplog: pytest.LogCaptureFixture, format: str
) -> None:
    path = song("song.flac", samples=5000)
    tag(path)
    content = bytearray(path.read_bytes())
    at = content.index(b"image/png") - 4
    content[at : at + 4] = b"\0\xff\xff\xff"  # the length of its type
    path.write_bytes(content)
    tags = read_tags(Separator(stub.half()).separate_file(path, format=format)["vocals"])
    assert tags.fields == FIELDS
    assert tags.pictures == []
    assert "a picture of song.flac is damaged" in caplog.text


def test_a_damaged_picture_in_an_ogg_comment_is_dropped_alone(stub: Stubs, song: WriteSong) -> None:
    path = song("song.ogg", samples=5000)
    tag(path)
    file = mutagen.File(path)
    file["metadata_block_picture"] = ["AAAA", *file["metadata_block_picture"]]
    file.save()
    tags = read_tags(Separator(stub.half()).separate_file(path)["vocals"])
    assert (tags.fields, len(tags.pictures)) == (FIELDS, 1)


def test_an_excerpt_keeps_what_states_no_time_in_the_song() -> None:
    fields = {"title": ["x"], "time_reference": ["1000"], "cuesheet": ["00:01"]}
    kept = Tags(fields, frames=[TIT2(text="x"), CHAP(element_id="a")]).for_excerpt(44100)
    assert kept.fields == {"title": ["x"], "time_reference": ["45100"]}
    assert [frame.FrameID for frame in kept.frames] == ["TIT2"]
