"""Plans: the songs that are found, and the files that will be written for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bsmamba2 import AudioError, ModelError
from bsmamba2.batch.plan import OutputOptions, find_songs, without_own_outputs
from bsmamba2.devices.products import SPEEDS
from support.albums import write_album
from support.engines import Stubs
from support.fixtures import Noise, WriteSong


@pytest.fixture
def album(tmp_path: Path, noise: Noise) -> Path:
    return write_album(tmp_path / "album", noise)


def test_songs_of_a_folder_are_found_in_the_order_of_their_names(album: Path) -> None:
    songs = [song.relative_to(album) for song, _, _ in find_songs([album], None)]
    assert list(map(str, songs)) == ["a.flac", "b.wav", "two/c.wav"]


def test_the_folder_for_stems_gets_the_same_subfolders(album: Path, tmp_path: Path) -> None:
    songs = list(find_songs([album, album / "b.wav"], tmp_path / "out"))
    folders = [tmp_path / "out"] * 2 + [tmp_path / "out" / "two", tmp_path / "out"]
    assert [folder for _, folder, _ in songs] == folders
    assert [is_named for _, _, is_named in songs] == [False, False, False, True]


def test_without_a_folder_for_stems_no_song_is_assigned_one(album: Path) -> None:
    assert {folder for _, folder, _ in find_songs([album], None)} == {None}


def test_a_folder_without_songs_is_refused_with_the_known_suffixes(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"contains no songs: choose one with files in \.aac"):
        list(find_songs([tmp_path], None))


def test_an_impossible_path_is_an_error_of_one_line() -> None:
    with pytest.raises(AudioError, match=r"cannot be opened \(File name too long\)"):
        list(find_songs([Path("x" * 300)], None))


def test_a_plan_lists_the_files_before_anything_is_written(
    stub: Stubs, song: WriteSong, tmp_path: Path
) -> None:
    path = song(samples=22050)
    plan = OutputOptions(subtype="PCM_24").plan(path, tmp_path / "out", stub.half().manifest)
    assert plan.outputs == {
        "vocals": tmp_path / "out" / "song_vocals.wav",
        "instrumental": tmp_path / "out" / "song_instrumental.wav",
    }
    assert (plan.seconds, plan.overlap, plan.encoding.subtype) == (0.5, None, "PCM_24")
    assert not (tmp_path / "out").exists()


def test_a_plan_for_some_stems_has_no_name_for_the_others(stub: Stubs, song: WriteSong) -> None:
    plan = OutputOptions(("no_vocals",)).plan(song(), None, stub.half().manifest)
    assert plan.names == (None, "song_instrumental")
    assert list(plan.outputs) == ["instrumental"]


def test_stems_of_another_speed_are_not_those_of_this_one(stub: Stubs, song: WriteSong) -> None:
    path, manifest = song(), stub.half().manifest
    records = [OutputOptions(speed=name).plan(path, None, manifest).record for name in SPEEDS]
    records[0].write({})
    assert records[0].read() is not None
    assert records[1].read() is None


def test_stems_of_another_precision_are_not_those_of_this_one(stub: Stubs, song: WriteSong) -> None:
    path, manifest = song(), stub.half().manifest
    kinds = ("fp32", "bf16")
    records = [OutputOptions(precision=kind).plan(path, None, manifest).record for kind in kinds]
    records[0].write({})
    assert records[0].read() is not None
    assert records[1].read() is None


def test_an_unknown_stem_is_refused(stub: Stubs) -> None:
    with pytest.raises(ModelError, match="stem must be one of vocals, instrumental; got 'drums'"):
        OutputOptions(("drums",)).selected_stems(stub.half().manifest)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"overlap": 2}, "overlap must be a fraction"),
        ({"format": "xyz"}, "format must be one of"),
        ({"clip": "no"}, "clip must be one of"),
        ({"template": "{no}.{ext}"}, "template"),
    ],
)
def test_options_that_fit_no_song_are_refused_on_creation(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(AudioError, match=message):
        OutputOptions(**options)


def test_a_template_without_the_stem_is_refused_for_two_stems(stub: Stubs) -> None:
    options = OutputOptions(template="{name}.{ext}")
    with pytest.raises(AudioError, match="template must have {stem} to write 2 stems"):
        options.selected_stems(stub.half().manifest)


def test_stems_next_to_their_songs_are_not_separated_unless_named(
    stub: Stubs, song: WriteSong
) -> None:
    paths = [song(name, samples=99) for name in ("a.wav", "a_vocals.wav", "b.wav")]
    plans = [OutputOptions().plan(path, None, stub.half().manifest) for path in paths]
    kept = [plan.song.name for plan in without_own_outputs(plans, [])]
    assert kept == ["a.wav", "b.wav"]
    assert without_own_outputs(plans, [paths[1]]) == plans
