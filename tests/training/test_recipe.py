"""The recipe of the free data set, on packages of seconds that are made here."""

from __future__ import annotations

import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from bsmamba2.errors import AudioError
from bsmamba2_training.recipe import Amounts, build
from bsmamba2_training.sources import PACKAGES, Package, matching

RATE = 44100
FILES = {"voice": r"/voices/(\w+)/[^/]*\.wav$", "music": r"/music/[^/]*\.wav$"}
TINY = tuple(
    Package(f"{split}-{kind}", "1", "", split, kind, f"licence of {split}", "somebody", FILES[kind])
    for split in ("train", "valid", "test")
    for kind in ("voice", "music")
)
MUSIC = TINY[1]
SMALL = Amounts(sung_minutes=1, held_minutes=1, valid_songs=1, test_songs=0)
NO_SONGS = Amounts(sung_minutes=0, held_minutes=0, valid_songs=0, test_songs=0)


@pytest.fixture(scope="module", autouse=True)
def tiny():
    """TINY are the packages, in this process alone; phrases are short, since singing is slow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bsmamba2_training.recipe.PHRASE_S", 1.5)
        patch.setattr("bsmamba2_training.recipe.ProcessPoolExecutor", ThreadPoolExecutor)
        patch.setattr("bsmamba2_training.recipe.PACKAGES", TINY)
        patch.setattr("bsmamba2_training.sources.PACKAGES", TINY)
        yield


@pytest.fixture(scope="module")
def work(tmp_path_factory, tone):
    """TINY as if it were fetched: a speaker of two words or a track of four seconds in each."""
    work = tmp_path_factory.mktemp("work")
    for package in TINY:
        folder = work / "unpacked" / package.name
        if package.kind == "voice":
            write(folder / "voices/ada/first.wav", spoken(140))
            write(folder / "voices/ada/second.wav", spoken(150))
        else:
            write(folder / "music/a track.wav", 2 * tone(262, 4) + tone(392, 4))
        words = folder / "usr/share/doc" / package.name / "copyright"
        words.parent.mkdir(parents=True)
        words.write_text(f"words of {package.name}\n")
    return work


@pytest.fixture(scope="module")
def made(work, tmp_path_factory):
    """The data set that TINY makes."""
    folder = tmp_path_factory.mktemp("made")
    build(folder, work, SMALL)
    return folder


def spoken(hz):
    """1.2 s of a buzz that swells and falls twice, which passes for speech."""
    t = np.arange(int(1.2 * RATE)) / RATE
    buzz = sum(np.sin(2 * np.pi * hz * k * t) / k for k in range(1, 30))
    return 0.2 * buzz * np.clip(np.sin(2 * np.pi * t / 0.6), 0, 1)


def write(path, audio, rate=RATE):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, audio, rate)


def audio_in(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.wav")}


def named(split):
    """Whom its packages name."""
    parts = (re.split(r"[:;,()]|speech by| and ", p.by) for p in PACKAGES if p.split == split)
    return {name.strip() for names in parts for name in names} - {""}


def test_a_data_set_holds_both_pools_and_the_fixed_songs(made):
    assert set(audio_in(made)) == {
        "train/vocals/train-voice-ada-spoken.wav",
        "train/vocals/train-voice-ada-sung.wav",
        "train/vocals/train-voice-ada-held.wav",
        "train/instrumental/train-music-a-track.wav",
        "valid/00/mixture.wav",
        "valid/00/vocals.wav",
        "valid/00/instrumental.wav",
    }


def test_two_folders_of_different_names_get_the_same_bytes(made, work, tmp_path):
    build(tmp_path / "another name", work, SMALL)
    assert audio_in(tmp_path / "another name") == audio_in(made)


def test_the_mixture_of_a_fixed_song_is_exactly_vocals_and_instrumental(made):
    mixture, vocals, instrumental = (
        soundfile.read(made / "valid/00" / f"{name}.wav", dtype="int16")[0].astype(int)
        for name in ("mixture", "vocals", "instrumental")
    )
    np.testing.assert_array_equal(mixture, vocals + instrumental)
    assert vocals.any()
    assert instrumental.any()


def test_a_stopped_recipe_goes_on_and_makes_only_what_is_missing(made, work, tmp_path):
    folder = shutil.copytree(made, tmp_path / "set")
    (folder / "train/vocals/train-voice-ada-spoken.wav").unlink()
    shutil.rmtree(folder / "valid/00")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.wav")}
    build(folder, work, SMALL)
    assert audio_in(folder) == audio_in(made)
    assert all(path.stat().st_mtime_ns == written for path, written in before.items())


@pytest.mark.parametrize("minutes", [0, 0.01])
def test_a_speaker_with_nothing_to_sing_only_speaks(work, tmp_path, minutes):
    build(tmp_path, work, replace(NO_SONGS, sung_minutes=minutes))
    names = {path.name for path in (tmp_path / "train/vocals").iterdir()}
    assert names == {"train-voice-ada-spoken.wav"}


def test_an_error_ends_the_other_tasks_soon(work, tmp_path, monkeypatch):
    begun = []

    def fails_first(task, unpacked):
        begun.append(task)
        time.sleep(0.02)
        if len(begun) == 1:
            raise AudioError("no such voice")

    monkeypatch.setattr("bsmamba2_training.recipe._make", fails_first)
    with pytest.raises(AudioError, match="no such voice"):
        build(tmp_path, work, Amounts(valid_songs=200))
    assert len(begun) < 200


def test_a_negative_amount_is_refused_by_name():
    with pytest.raises(AudioError, match="sung_minutes must be at least 0"):
        Amounts(sung_minutes=-1)


def test_a_data_set_takes_no_other_amounts_than_it_was_made_with(made, work):
    with pytest.raises(AudioError, match="sung_minutes must be 1, .*; got 60: name another folder"):
        build(made, work, replace(SMALL, sung_minutes=60))


def test_a_data_set_from_before_amounts_were_kept_has_the_defaults(work, tmp_path):
    (tmp_path / "SOURCES.md").touch()
    with pytest.raises(AudioError, match="sung_minutes must be 60"):
        build(tmp_path, work, Amounts(sung_minutes=5))


def test_a_data_set_from_before_long_notes_gets_none(made, work, tmp_path):
    folder = shutil.copytree(made, tmp_path / "set")
    (folder / "amounts.json").write_text('{"sung_minutes": 1, "valid_songs": 1, "test_songs": 0}')
    with pytest.raises(AudioError, match="held_minutes must be 0, with which"):
        build(folder, work, SMALL)


@pytest.mark.parametrize("text", ["[]", "{", '{"minutes": 1}', '{"sung_minutes": "1"}'])
def test_damaged_amounts_are_told(work, tmp_path, text):
    (tmp_path / "amounts.json").write_text(text)
    with pytest.raises(AudioError, match="amounts.json is damaged"):
        build(tmp_path, work, SMALL)


def test_sources_are_listed_first_and_then_speak_for_themselves(made):
    table, *words = (made / "SOURCES.md").read_text().split("\n## ")
    rows = [f"| {p.name} | 1 | {p.split}, {p.kind} | {p.licence} | {p.by} |" for p in TINY]
    assert table.splitlines()[-len(TINY) :] == rows
    assert words[0].rstrip() == f"{TINY[0].name}\n\nwords of {TINY[0].name}"
    assert len(words) == len(TINY)


def test_files_of_another_rate_are_left_out(tmp_path):
    write(tmp_path / "music/low.wav", np.zeros(9), 22050)
    write(tmp_path / "music/high.wav", np.zeros(9))
    package = replace(MUSIC, rate=22050)
    assert [name for name, _ in matching(package, tmp_path)] == ["low"]


def test_a_folder_named_music_above_the_set_changes_nothing(tmp_path):
    unpacked = tmp_path / "music" / "a package"
    write(unpacked / "effects/bang.wav", np.zeros(9))
    write(unpacked / "music/song.wav", np.zeros(9))
    package = replace(MUSIC, files=r"/music/.*\.wav$")
    assert [name for name, _ in matching(package, unpacked)] == ["song"]


def test_no_package_stands_in_two_splits():
    names = [package.name for package in PACKAGES]
    assert len(set(names)) == len(names)
    kinds = {(package.split, package.kind) for package in PACKAGES}
    assert len(kinds) == 6


def test_nobody_who_is_named_stands_in_train_and_test():
    assert not named("test") & (named("train") | named("valid"))
    assert named("train") & named("valid") == {"Maxstack", "Matthew Pablo"}
