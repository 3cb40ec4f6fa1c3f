"""Batches: planned in advance, resumable after any interruption, never losing a user's file."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import mutagen
import numpy as np
import pytest
import soundfile

from bsmamba2 import AudioError, Separator
from bsmamba2.audio.array import Audio
from bsmamba2.files.song_file import SongFile
from support.albums import contents, visible, write_album
from support.commands import StubCommand
from support.engines import StubEngine, Stubs
from support.files import integers
from support.fixtures import Noise, WriteSong


@pytest.fixture
def engine(stub: Stubs) -> StubEngine:
    return stub.lower_half_band()


@pytest.fixture
def run(engine: StubEngine, monkeypatch: pytest.MonkeyPatch) -> StubCommand:
    return StubCommand(monkeypatch, engine)


@pytest.fixture
def album(tmp_path: Path, noise: Noise) -> Path:
    return write_album(tmp_path / "album", noise)


def stems_of(*bases: str) -> list[str]:
    return sorted(f"{base}_{stem}" for base in bases for stem in ("vocals", "instrumental"))


def without_suffixes(folder: Path) -> list[str]:
    return [path.rpartition(".")[0] for path in visible(folder)]


def test_a_folder_stands_for_its_songs_and_the_output_gets_its_subfolders(
    run: StubCommand, album: Path, tmp_path: Path
) -> None:
    result = run("separate", album, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert without_suffixes(tmp_path / "out") == stems_of("a", "b", "two/c")


def test_a_song_that_is_named_twice_is_separated_once(
    run: StubCommand, album: Path, tmp_path: Path
) -> None:
    songs = album, album, album / "a.flac", album / "a.flac"
    result = run("separate", *songs, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert len(visible(tmp_path / "out")) == 6


def test_two_songs_with_the_same_outputs_do_not_overwrite_each_other(
    run: StubCommand, song: WriteSong, tmp_path: Path
) -> None:
    wav, flac = song("song.wav"), song("song.flac")
    result = run("separate", wav, flac, "--overwrite", "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert f"{flac} and {wav} would be written to the same files: choose" in result.stderr
    assert visible(tmp_path / "out") == ["song_instrumental.wav", "song_vocals.wav"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "xyz"], "format must be one of"),
        (["--overlap", "2"], "overlap must be a fraction"),
        (["--stem", "bass"], "stem must be one of vocals, instrumental; got 'bass'"),
        (["--template", "{name}.{ext}"], "template must have {stem}"),
    ],
)
def test_an_option_that_fits_no_song_is_reported_once_for_all(
    run: StubCommand, album: Path, options: list[str], message: str
) -> None:
    result = run("separate", album, *options)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith(f"bsmamba2: {message}")
    assert result.stderr.count(message) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [("", "must be a path; got an empty one"), ("x" * 300 + ".wav", "cannot be opened (File name")],
)
def test_an_impossible_path_is_an_error_of_one_line(
    run: StubCommand, name: str, message: str
) -> None:
    result = run("separate", name)
    assert result.exit_code == 2
    assert message in result.stderr.splitlines()[-1]


def test_the_plan_is_printed_and_nothing_is_separated(
    run: StubCommand, album: Path, tmp_path: Path
) -> None:
    result = run("separate", album, "-o", tmp_path / "out", "--plan")
    assert "3 songs, 0:01 of audio; 6 files into 2 folders" in result.stderr
    assert result.stdout.split()[0] == str(tmp_path / "out/a_vocals.flac")
    assert not (tmp_path / "out").exists()


def test_a_second_run_does_not_separate_the_stems_of_the_first(
    run: StubCommand, album: Path
) -> None:
    assert run("separate", album).exit_code == 0
    again = run("separate", album, "--overwrite")
    assert again.exit_code == 0, again.output
    assert len(visible(album)) == 4 + 6


def test_a_stem_that_is_named_explicitly_is_separated(run: StubCommand, album: Path) -> None:
    assert run("separate", album / "a.flac").exit_code == 0
    result = run("separate", album / "a.flac", album / "a_vocals.flac", "--overwrite")
    assert "a_vocals_vocals.flac" in result.stdout


def test_a_folder_without_songs_fails_and_the_rest_is_separated(
    run: StubCommand, album: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    result = run("separate", tmp_path / "empty", album / "b.wav")
    assert result.exit_code == 2
    assert "empty contains no songs: choose one with files in .aac" in result.stderr
    assert len(result.stdout.split()) == 2


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


def test_two_runs_on_one_song_are_a_clear_error(stub: Stubs, song: WriteSong) -> None:
    path = song(samples=100_000)
    errors: list[str] = []
    separator = Separator(stub.half())

    def start_another(done: float, total: float) -> None:
        try:
            Separator(stub.half()).separate_file(path)
        except AudioError as error:
            errors.append(str(error))

    outputs = separator.separate_file(path, progress=start_another)
    assert all("song_vocals.wav is being written by another run" in error for error in errors)
    assert errors
    assert soundfile.info(outputs["vocals"]).frames == 100_000


def test_two_runs_on_one_folder_lose_nothing(stub: Stubs, song: WriteSong) -> None:
    paths = [song(f"{k}.wav", samples=60_000) for k in range(6)]
    separator = Separator(stub.lower_half_band())
    errors: list[str] = []

    def separate_all(order: list[Path]) -> None:
        for path in order:
            try:
                separator.separate_file(path, resume=True)
            except AudioError as error:
                errors.append(str(error))

    threads = [
        threading.Thread(target=separate_all, args=[order]) for order in (paths, paths[::-1])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all("by another run" in error or "exists already" in error for error in errors)
    for path in paths:
        vocals, rest = (path.with_name(f"{path.stem}_{s}.wav") for s in ("vocals", "instrumental"))
        np.testing.assert_array_equal(integers(vocals) + integers(rest), integers(path))


def test_a_bug_in_one_song_gives_status_1_and_the_rest_is_separated(
    run: StubCommand, stub: Stubs, album: Path
) -> None:
    failures: list[Audio] = []

    def fail_once(chunk: Audio) -> Audio:
        if not failures:
            failures.append(chunk)
            raise ZeroDivisionError("by zero")
        return chunk[np.newaxis]

    run.open_engine = lambda model: stub.of(fail_once)
    result = run("separate", album)
    assert (result.exit_code, len(result.stdout.split())) == (1, 4)
    assert "a.flac: ZeroDivisionError: by zero: this is a bug" in result.stderr


def test_a_template_makes_folders(run: StubCommand, album: Path, tmp_path: Path) -> None:
    run("separate", album, "-o", tmp_path / "out", "--template", "{name}/{stem}.{ext}")
    assert without_suffixes(tmp_path / "out") == sorted(
        f"{name}/{stem}" for name in ("a", "b", "two/c") for stem in ("vocals", "instrumental")
    )


def test_two_stems_with_the_same_name_are_refused(stub: Stubs, song: WriteSong) -> None:
    with pytest.raises(AudioError, match="template must have {stem} to write 2 stems"):
        Separator(stub.half()).separate_file(song(), template="{name}.{ext}")


def test_one_unreadable_entry_of_a_folder_is_one_line_and_the_rest_is_separated(
    run: StubCommand, album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (album / "broken.flac").symlink_to("nowhere")
    (album / "text.mp3").write_text("no song")
    (album / "locked").mkdir()
    scan = os.scandir

    def refuse(folder: Path) -> object:
        if folder == album / "locked":  # root may read all
            raise PermissionError(13, "Permission denied", str(folder))
        return scan(folder)

    monkeypatch.setattr("os.scandir", refuse)
    result = run("separate", album, tmp_path / "none", "-o", tmp_path / "out")
    monkeypatch.undo()
    assert result.exit_code == 2
    failures = [line for line in result.stderr.splitlines() if line.startswith("bsmamba2: ")]
    assert len(failures) == 4
    assert "the folder " + str(album / "locked") in result.stderr
    assert len(visible(tmp_path / "out")) == 6


def test_a_song_whose_extra_is_missing_does_not_stop_the_folder(
    run: StubCommand, album: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    (album / "0.m4a").write_bytes(b"\0\0\0\x10ftypM4A \0\0\0\0")
    result = run("separate", album)
    assert (result.exit_code, len(result.stdout.split())) == (2, 6)
    assert result.stderr.count("0.m4a can only be read with FFmpeg (it is MP4): pip install") == 1


def test_an_unexpected_error_while_planning_is_one_line_too(
    run: StubCommand, album: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(song: SongFile) -> SongFile:
        if song.path.name == "b.wav":
            raise ZeroDivisionError("by zero")
        return song

    monkeypatch.setattr("bsmamba2.batch.plan.SongFile.__enter__", fail)
    result = run("separate", album, "--plan")
    assert (result.exit_code, len(result.stdout.split())) == (1, 4)
    assert "b.wav: ZeroDivisionError: by zero: this is a bug" in result.stderr


def test_two_spellings_of_a_song_are_one_song(
    run: StubCommand, album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(album)
    monkeypatch.chdir(album)
    spellings = "a.flac", "./a.flac", "two/../a.flac", album / "a.flac", tmp_path / "link/a.flac"
    result = run("separate", *spellings)
    assert result.exit_code == 0, result.output
    assert len(result.stdout.split()) == 2


FIELDS = ["{name}_{source_ext}_{stem}.{ext}", "{title} {stem}.{ext}", "{track} {stem}.{ext}"]


@pytest.mark.parametrize("template", FIELDS)
def test_songs_of_one_name_are_told_apart_by_a_template(
    run: StubCommand, song: WriteSong, tmp_path: Path, template: str
) -> None:
    for number, path in enumerate((song("song.ogg"), song("song.flac"))):
        file = mutagen.File(path)
        file.update({"title": [f"t{number}"], "tracknumber": [str(number)]})
        file.save()
    result = run("separate", tmp_path, "-o", tmp_path / "out", "--template", template)
    assert result.exit_code == 0, result.output
    assert len(visible(tmp_path / "out")) == 4


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


def test_a_name_too_long_for_its_stems_fails_before_the_work(
    run: StubCommand, engine: StubEngine, song: WriteSong
) -> None:
    result = run("separate", song("x" * 245 + ".wav", samples=500))
    assert result.exit_code == 2
    assert "allows 255: choose a shorter template, or rename the song" in result.stderr
    assert engine.lengths == []


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


def test_mixes_and_previews_next_to_their_songs_are_not_taken_for_songs(
    run: StubCommand, album: Path
) -> None:
    run("separate", album, "--mix", "vocals=0")
    run("separate", album, "--duration", "0.1")
    plan = run("separate", album, "--plan", "-o", album / "out", "--overwrite")
    assert len(plan.stdout.splitlines()) == 2 * 3
