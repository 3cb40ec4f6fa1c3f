"""Tags and pictures: from every kind of song to every kind of stem, and never in the way."""

from __future__ import annotations

import base64
import errno

import mutagen
import numpy as np
import pytest
import soundfile
from mutagen.flac import FLAC, Picture
from mutagen.id3 import APIC, TIT2, TPE1, TRCK, TXXX, USLT

from bsmamba2 import AudioError, Separator
from bsmamba2.files.tags import read_tags

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
SAID = {"title": ["Ångström"], "artist": ["One", "Two"], "tracknumber": ["3/12"], "mood": ["blue"]}


def tag(path):
    """Gives a song the tags above in the words of its own format, and a picture."""
    file = mutagen.File(path)
    if isinstance(file, FLAC):
        file.update(SAID | {"replaygain_track_gain": ["-3 dB"]})
        picture = Picture()
        picture.data, picture.mime, picture.type = PNG, "image/png", 3
        file.add_picture(picture)
    elif path.suffix == ".ogg":
        file.update(SAID | {"replaygain_track_gain": ["-3 dB"]})
        picture = Picture()
        picture.data, picture.mime, picture.type = PNG, "image/png", 3
        file["metadata_block_picture"] = [base64.b64encode(picture.write()).decode()]
    else:
        if file.tags is None:
            file.add_tags()
        file.tags.add(TIT2(encoding=3, text=SAID["title"]))
        file.tags.add(TPE1(encoding=3, text=SAID["artist"]))
        file.tags.add(TRCK(encoding=3, text=SAID["tracknumber"]))
        file.tags.add(TXXX(encoding=3, desc="mood", text=SAID["mood"]))
        file.tags.add(TXXX(encoding=3, desc="replaygain_track_gain", text=["-3 dB"]))
        file.tags.add(APIC(encoding=3, mime="image/png", type=3, data=PNG))
    file.save()


@pytest.mark.parametrize("kind", ["flac", "ogg", "mp3", "wav", "aiff"])
@pytest.mark.parametrize("format", ["flac", "ogg", "mp3", "wav", "aiff"])
def test_tags_and_pictures_go_from_every_kind_to_every_kind(stub, song, kind, format):
    path = song(f"song.{kind}", samples=5000)
    tag(path)
    made = Separator(stub.half()).separate_file(path, format=format, template="{stem}.{ext}")
    for stem in made.values():
        tags = read_tags(stem)
        assert tags.fields == SAID
        assert [(picture.data, picture.mime, picture.type) for picture in tags.pictures] == [
            (PNG, "image/png", 3)
        ]


@pytest.mark.parametrize("format", ["wav", "aiff", "flac"])
def test_tagged_stems_still_sum_to_the_bit(stub, song, format):
    path = song("song.flac", "PCM_16", samples=5000)
    tag(path)
    made = Separator(stub.lower_half_band()).separate_file(path, format=format)
    total = sum(soundfile.read(stem, dtype="int32")[0] for stem in made.values())
    np.testing.assert_array_equal(total, soundfile.read(path, dtype="int32")[0])


@pytest.mark.parametrize("format", ["w64", "caf", "au"])
def test_a_format_without_a_place_for_tags_has_none(stub, song, format):
    path = song("song.flac", samples=500)
    tag(path)
    made = Separator(stub.half()).separate_file(path, format=format)
    assert soundfile.info(made["vocals"]).frames == 500


def test_lyrics_and_numbers_of_mp4_are_translated(tmp_path):
    from bsmamba2.files.tags import _from_mp4

    atoms = {"trkn": [(3, 12)], "disk": [(1, 0)], "\xa9nam": ["T"], "\xa9lyr": ["la\nla"]}
    assert _from_mp4(atoms).fields == {
        "title": ["T"], "tracknumber": ["3/12"], "discnumber": ["1"], "lyrics": ["la\nla"],
    }  # fmt: skip


def test_lyrics_of_id3_reach_flac(stub, song):
    path = song("song.mp3", samples=5000)
    file = mutagen.File(path)
    file.add_tags() if file.tags is None else None
    file.tags.add(USLT(encoding=3, lang="eng", desc="", text="la\nla"))
    file.save()
    made = Separator(stub.half()).separate_file(path)
    assert read_tags(made["vocals"]).fields == {"lyrics": ["la\nla"]}


def test_damaged_tags_are_said_and_the_song_is_separated(stub, song, caplog):
    path = song("song.flac", samples=5000)
    tag(path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"title=", b"ti\xff\xfee="))
    made = Separator(stub.half()).separate_file(path)
    assert soundfile.info(made["vocals"]).frames == 5000


def test_a_disk_that_is_full_for_the_tags_leaves_no_damaged_stem(stub, song, monkeypatch):
    def fill(self, *where, **how):
        raise mutagen.MutagenError(OSError(errno.ENOSPC, "No space left on device"))

    path = song("song.flac", samples=5000)
    tag(path)
    monkeypatch.setattr(FLAC, "save", fill)
    with pytest.raises(AudioError, match=r"cannot be written \(No space left on device\)"):
        Separator(stub.half()).separate_file(path)
    assert list(path.parent.iterdir()) == [path]
