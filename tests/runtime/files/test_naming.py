"""Templates name stems within the output folder, for any names of songs and models."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bsmamba2 import AudioError
from bsmamba2.files.naming import DEFAULT_TEMPLATE, Template, hidden_name, require_lengths


@pytest.mark.parametrize(
    ("template", "base"),
    [
        (DEFAULT_TEMPLATE, "song_vocals"),
        ("{name}/{stem}.{ext}", "song/vocals"),
        ("{model}/{stem} of {name}.{ext}", "a_b/vocals of song"),
        ("{stem}.{ext}", "vocals"),
    ],
)
def test_fields_are_filled_in(template: str, base: str) -> None:
    assert Template(template).base("song", "vocals", "a/b") == base


@pytest.mark.parametrize(
    "template",
    [
        "", ".{ext}", "{name}", "{name}.flac", "{name}.{ext}.{ext}", "{year}.{ext}", "{}.{ext}",
        "{name!r}.{ext}", "{name:>9}.{ext}", "{name.__class__}.{ext}", "{.{ext}", "{name.{ext}",
        "../{stem}.{ext}", "/{stem}.{ext}", "a\\{name}.{ext}",
        "{name}\0.{ext}",
    ],
)  # fmt: skip
def test_a_template_that_is_not_a_path_below_the_folder_is_refused(template: str) -> None:
    with pytest.raises(AudioError, match="template must be a path below") as error:
        Template(template)
    assert f"got {template!r}: " in str(error.value)


@given(st.text(min_size=1))
def test_a_model_s_name_cannot_leave_the_folder(model: str) -> None:
    path = PurePosixPath("out", Template("{model}/{stem}.{ext}").base("song", "vocals", model))
    assert len(path.parts) == 3
    assert ".." not in path.parts


def test_several_stems_need_a_template_with_their_name() -> None:
    Template("{name}.{ext}").require_stems(1)
    with pytest.raises(AudioError, match=r"template must have \{stem\} to write 2 stems; got "):
        Template("{name}.{ext}").require_stems(2)


TAGS = {"artist": ["A/B"], "title": ["../x"], "tracknumber": ["3/12"], "album": [".b"]}


@pytest.mark.parametrize(
    ("template", "base"),
    [
        ("{artist}/{album}/{track} {title}_{stem}.{ext}", "A_B/b/03 _x_vocals"),
        ("{name}.{source_ext}_{stem}.{ext}", "song.flac_vocals"),
    ],
)
def test_tags_and_the_suffix_of_the_song_are_filled_in(template: str, base: str) -> None:
    assert Template(template).base("song.flac", "vocals", "m", TAGS) == base


def test_missing_tags_have_names_too() -> None:
    template = Template("{artist}/{album}/{track} {title} {stem}.{ext}")
    assert template.base("a.wav", "vocals", "m") == "unknown artist/unknown album/00 a vocals"


@given(st.text(), st.text(), st.text())
def test_tags_cannot_leave_the_folder_or_hide(artist: str, title: str, number: str) -> None:
    tags = {"artist": [artist], "title": [title], "tracknumber": [number]}
    base = Template("{artist}/{track}/{title}.{ext}").base("song.wav", "vocals", "m", tags)
    path = PurePosixPath("out", base)
    assert len(path.parts) == 4
    assert not any(part.startswith(".") for part in path.parts)
    assert base.isprintable()


def test_a_hidden_name_is_short_and_differs_for_every_name() -> None:
    long = [f"{'ü' * 120}{k}.flac" for k in range(9)]
    hidden = {hidden_name(name, ".part") for name in long}
    assert len(hidden) == 9
    assert all(len(os.fsencode(name)) <= 143 for name in hidden)
    assert hidden_name("song.flac", ".part") == ".song.flac.part"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("x" * 250 + "_vocals.wav", r"name of 261 bytes, .* allows 255: choose a shorter"),
        ("é" * 125 + "_v.wav", r"name of 256 bytes"),
        ("y" * 300 + "/a.wav", r"name of 300 bytes"),
        ("abcdefgh/" * 500 + "a.wav", r"is a path of \d+ bytes, and the system allows 4095"),
    ],
)
def test_a_name_that_no_folder_can_hold_is_refused(tmp_path: Path, path: str, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        require_lengths(tmp_path / path)


def test_a_name_of_255_bytes_fits(tmp_path: Path) -> None:
    require_lengths(tmp_path / ("x" * 255))
