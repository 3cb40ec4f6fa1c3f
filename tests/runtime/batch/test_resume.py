"""Resuming: after any interruption, without losing a user's file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from bsmamba2 import AudioError, Separator
from support.albums import contents, visible
from support.commands import StubCommand
from support.engines import StubEngine, Stubs
from support.files import integers
from support.fixtures import Noise, WriteSong


def test_resuming_skips_finished_songs_and_separates_the_rest(
    run: StubCommand, engine: StubEngine, album: Path
) -> None:
    run("separate", album / "a.flac")
    before, runs = contents(album), len(engine.lengths)
    result = run("separate", album, "--resume")
    assert (result.exit_code, len(result.stdout.split())) == (0, 4)
    assert "2 songs, 0:00 of audio; 4 files into 2 folders; 1 already done" in result.stderr
    assert len(engine.lengths) == 3 * runs
    assert before.items() <= contents(album).items()


def test_a_resumed_song_is_marked_in_json(run: StubCommand, album: Path) -> None:
    run("separate", album / "a.flac")
    result = run("separate", album / "a.flac", "--resume", "--json")
    assert json.loads(result.stdout)["resumed"] is True


@pytest.mark.parametrize("change", ["song", "overlap", "model", "stem"])
def test_stems_of_another_song_model_or_option_are_kept_without_overwrite(
    run: StubCommand, stub: Stubs, album: Path, noise: Noise, change: str
) -> None:
    song, options = album / "b.wav", list[str]()
    run("separate", song)
    before = (album / "b_vocals.wav").read_bytes()
    if change == "song":
        soundfile.write(song, 0.2 * noise(2, 9000).T, 44100)
    elif change == "model":
        run.open_engine = lambda model: stub.half(name="another")
    else:
        options = {"overlap": ["--overlap", "0.5"], "stem": ["--stem", "vocals"]}[change]
    result = run("separate", song, "--resume", *options)
    assert (result.exit_code, "exists already" in result.stderr) == (2, True)
    assert (album / "b_vocals.wav").read_bytes() == before


def test_a_song_with_another_time_but_the_same_content_is_done(
    run: StubCommand, album: Path
) -> None:
    run("separate", album / "b.wav")
    os.utime(album / "b.wav", (1, 1))
    assert "1 already done" in run("separate", album / "b.wav", "--resume").stderr


def test_after_a_killed_run_resuming_writes_the_same_bytes(run: StubCommand, album: Path) -> None:
    run("separate", album / "b.wav")
    whole = contents(album)
    (album / "b_vocals.wav").unlink()
    (album / ".b_vocals.wav.part").write_bytes(b"half")
    assert run("separate", album / "b.wav", "--resume").exit_code == 0
    assert contents(album) == whole
    assert not (album / ".b_vocals.wav.part").exists()


def test_a_file_of_the_user_with_the_name_of_a_stem_is_kept(run: StubCommand, album: Path) -> None:
    run("separate", album / "b.wav")
    (album / "b_vocals.wav").write_text("mine")
    result = run("separate", album / "b.wav", "--resume")
    assert (result.exit_code, "exists already" in result.stderr) == (2, True)
    assert (album / "b_vocals.wav").read_text() == "mine"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"bsmamba2": 1}', b"[" * 9999])
def test_a_damaged_record_counts_as_no_record(
    run: StubCommand, album: Path, content: bytes
) -> None:
    run("separate", album / "b.wav")
    (album / ".b.wav.bsmamba2.json").write_bytes(content)
    assert run("separate", album / "b.wav", "--resume").exit_code == 2
    assert run("separate", album / "b.wav", "--resume", "--overwrite").exit_code == 0


def test_a_record_that_points_outside_its_folder_counts_as_no_record(
    run: StubCommand, album: Path
) -> None:
    run("separate", album / "b.wav")
    record = album / ".b.wav.bsmamba2.json"
    record.write_text(record.read_text().replace("b_vocals.wav", "../../x.wav"))
    assert "1 song, " in run("separate", album / "b.wav", "--resume", "--plan").stderr


LATER = {
    "another stem": (["--stem", "vocals"], []),
    "another template": (["--template", "{name}/{stem}.{ext}"], []),
    "a folder below": (["-o", "stems"], []),
    "another format": (["--format", "aiff"], ["--format", "wav"]),
}


@pytest.mark.parametrize("kind", LATER)
def test_stems_of_an_earlier_run_are_no_songs(
    run: StubCommand, album: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(album)
    first, second = LATER[kind]
    assert run("separate", ".", *first).exit_code == 0
    again = run("separate", ".", "-o", album.parent / "out", *second)
    assert again.exit_code == 0, again.output
    assert len(visible(album.parent / "out")) == 6
    assert run("separate", ".", "--overwrite", "--stem", "instrumental").exit_code == 0
    last = run("separate", ".", "--plan")
    assert len(last.stdout.split()) == 6


def test_overwriting_removes_the_stems_of_the_earlier_run_under_another_suffix(
    run: StubCommand, album: Path
) -> None:
    run("separate", album / "a.flac", "--format", "aiff")
    (album / "a_vocals.caf").write_text("mine")
    result = run("separate", album / "a.flac", "--overwrite")
    assert result.exit_code == 0, result.output
    left = [name for name in visible(album) if name.startswith("a_")]
    assert left == ["a_instrumental.flac", "a_vocals.caf", "a_vocals.flac"]


def test_a_changed_stem_of_the_earlier_run_is_the_user_s_and_is_kept(
    run: StubCommand, album: Path
) -> None:
    run("separate", album / "a.flac", "--format", "aiff")
    (album / "a_vocals.aiff").write_text("mine")
    run("separate", album / "a.flac", "--overwrite")
    left = [name for name in visible(album) if name.startswith("a_")]
    assert left == ["a_instrumental.flac", "a_vocals.aiff", "a_vocals.flac"]


def test_without_overwriting_stems_in_another_format_are_kept(
    run: StubCommand, album: Path
) -> None:
    run("separate", album / "a.flac", "--format", "aiff")
    assert run("separate", album / "a.flac").exit_code == 0
    assert len([name for name in visible(album) if name.startswith("a_")]) == 4


@pytest.mark.parametrize("length", [200, 237])
def test_a_song_with_a_long_name_is_separated_and_resumed(
    run: StubCommand, song: WriteSong, length: int
) -> None:
    path = song("x" * length + ".wav", samples=500)
    assert run("separate", path).exit_code == 0
    assert "1 already done" in run("separate", path, "--resume").stderr


def replace(path: Path, content: bytes) -> None:
    other = path.with_name("other")
    other.write_bytes(content)
    other.replace(path)


def rewrite(path: Path, content: bytes) -> None:
    known = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(known.st_atime_ns, known.st_mtime_ns))


@pytest.mark.parametrize("change", [replace, rewrite, Path.write_bytes])
def test_a_song_that_changes_while_it_is_separated_is_not_recorded_as_done(
    stub: Stubs, song: WriteSong, change: Callable[[Path, bytes], object]
) -> None:
    path, other = song("song.wav", samples=9000), song("x.wav", samples=9000, gain=0.2)
    content = other.read_bytes()
    other.unlink()
    separator = Separator(stub.half())

    def progress(done: float, total: float) -> None:
        change(path, content)

    with pytest.raises(AudioError, match="song.wav changed while it was separated: its stems are"):
        separator.separate_file(path, record=True, progress=progress)
    assert [entry.name for entry in path.parent.iterdir()] == ["song.wav"]
    outputs = separator.separate_file(path, resume=True)
    np.testing.assert_array_equal(sum(map(integers, outputs.values())), integers(path))


def test_a_song_that_is_only_touched_while_it_is_separated_is_done(
    stub: Stubs, song: WriteSong
) -> None:
    path = song(samples=9000)
    separator = Separator(stub.half())
    separator.separate_file(path, record=True, progress=lambda done, total: path.touch())
    assert separator.separate_file(path, resume=True)


def test_mixes_of_a_batch_are_resumed_and_leave_the_stems_records_alone(
    run: StubCommand, engine: StubEngine, album: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    stems = [album, "-o", out, "--resume"]
    mixes = [*stems, "--mix", "vocals=-14,instrumental=0", "--format", "mp3", "--bitrate", "128"]
    assert (run("separate", *stems).exit_code, run("separate", *mixes).exit_code) == (0, 0)
    assert sorted(path.name for path in out.rglob("*_mix.mp3")) == [
        "a_mix.mp3",
        "b_mix.mp3",
        "c_mix.mp3",
    ]
    runs = len(engine.lengths)
    assert "3 already done" in run("separate", *mixes).stderr
    assert "3 already done" in run("separate", *stems).stderr
    assert len(engine.lengths) == runs
    again = run("separate", *mixes[:-6], "--mix", "vocals=-20,instrumental=0", "--resume")
    assert "already done" not in again.stderr
    assert len(engine.lengths) > runs
