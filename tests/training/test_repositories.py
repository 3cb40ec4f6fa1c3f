"""Real singers from git repositories, here small ones on the disk."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from bsmamba2.audio.array import Audio
from bsmamba2.errors import AudioError
from bsmamba2_training import recipe
from bsmamba2_training.fetching import fetch_repository
from bsmamba2_training.recipe import Amounts, build
from bsmamba2_training.repositories import REPOSITORIES, Repository
from bsmamba2_training.repository_songs import read_song, songs_in

RATE = 44100
NO_SONGS = Amounts(sung_minutes=0, held_minutes=0, valid_songs=0, test_songs=0)


def git(folder: Path, *arguments: str) -> str:
    name = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"]
    done = subprocess.run(
        ["git", *name, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def tone(hz: float, seconds: float) -> Audio:
    t = np.arange(int(seconds * RATE)) / RATE
    return (0.2 * np.sin(2 * np.pi * hz * t)).astype(np.float32)


def phrases() -> Audio:
    """Two tones of a second, with a second of faint noise after each."""
    noise = 1e-5 * np.random.default_rng(0).standard_normal(RATE).astype(np.float32)
    return np.concatenate([tone(220, 1), noise, tone(330, 1), noise])


@pytest.fixture
def origin(tmp_path: Path) -> Repository:
    """A repository with two solos, two stems of a song, and a file that is not used."""
    folder = tmp_path / "origin"
    (folder / "solo").mkdir(parents=True)
    git(folder, "init", "--quiet")
    for name, audio in (
        ("solo/one.wav", phrases()),
        ("solo/two.wav", phrases()),
        ("A song_Stem_VOX.wav", phrases()),
        ("A song_Stem_DRUMS.wav", np.stack([tone(80, 5), tone(90, 5)], axis=1)),
    ):
        soundfile.write(folder / name, audio, RATE)
    (folder / "unused.bin").write_bytes(b"large")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "audio")
    commit = git(folder, "rev-parse", "HEAD")
    return Repository("tapes", folder.as_uri(), commit, "solo", "CC0-1.0", "me", r"^solo/")


def built(origin: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Builds a data set from this repository alone."""
    monkeypatch.setattr(recipe, "REPOSITORIES", (origin,))
    monkeypatch.setattr(recipe, "PACKAGES", ())
    monkeypatch.setattr("bsmamba2_training.sources.PACKAGES", ())
    monkeypatch.setattr(recipe, "fetch_wheel", lambda wheel, folder: folder)
    build(tmp_path / "set", tmp_path / "work", NO_SONGS)
    return tmp_path / "set/train"


def test_only_the_files_to_use_are_checked_out(origin: Repository, tmp_path: Path) -> None:
    checkout = fetch_repository(origin, tmp_path)
    files = {path.name for path in checkout.rglob("*") if ".git" not in path.parts}
    assert files == {"solo", "one.wav", "two.wav"}
    assert fetch_repository(origin, tmp_path) == checkout


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"commit": "0" * 40}, "failed"),
        ({"files": "nothing"}, "has no files nothing"),
    ],
)
def test_a_repository_without_the_commit_or_the_files_is_reported(
    origin: Repository, tmp_path: Path, change: dict[str, str], message: str
) -> None:
    with pytest.raises(AudioError, match=message):
        fetch_repository(replace(origin, **change), tmp_path)  # type: ignore[arg-type]


def test_solos_become_one_singer_that_is_silent_between_phrases(
    origin: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    singer = read_song(built(origin, tmp_path, monkeypatch) / "singers/tapes.wav")
    assert 6 < singer.shape[1] / RATE < 8
    assert 0.4 < np.count_nonzero(singer[0]) / singer.shape[1] < 0.8


def test_stems_become_music_a_singer_and_a_song_whose_vocals_are_known(
    origin: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stems = replace(origin, use="stems", files=r"(A song)_Stem", vocals="VOX")
    train = built(stems, tmp_path, monkeypatch)
    song = {p.stem: read_song(p) for p in (train / "songs/tapes-A-song").iterdir()}
    music = read_song(train / "instrumental/tapes-A-song.wav")
    np.testing.assert_allclose(song["mixture"] - song["vocals"], music, atol=1e-4)
    assert song["vocals"][:, : RATE // 2].any()
    assert not song["vocals"][:, int(1.5 * RATE) : int(1.8 * RATE)].any()
    assert song["weight"].min() > 0.99
    assert (train / "singers/tapes-A-song.wav").is_file()


def test_files_are_grouped_by_the_song_that_the_pattern_names(tmp_path: Path) -> None:
    for name in ("1.One_Stem_A.m4a", "1.One_Stem_B.m4a", "2.Two_Stem_A.m4a"):
        (tmp_path / name).touch()
    source = replace(REPOSITORIES[1], files=r"(\d\.[A-Z][a-z]+)_Stem_.*\.m4a$")
    found = {song: len(files) for song, files in songs_in(source, tmp_path).items()}
    assert found == {"everythingisfree-1.One": 2, "everythingisfree-2.Two": 1}


def test_the_sources_name_every_repository_with_its_commit(
    origin: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (built(origin, tmp_path, monkeypatch).parent / "SOURCES.md").read_text()
    for source in REPOSITORIES:
        assert f"| {source.name} | {source.commit[:12]} | train, {source.use} |" in text
        assert f"{source.address}, commit {source.commit}." in text


def test_a_repository_is_pinned_by_a_whole_commit() -> None:
    assert all(len(source.commit) == 40 for source in REPOSITORIES)
