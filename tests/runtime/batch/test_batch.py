"""Batches: planned in advance; one failure is one line and the rest goes on."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import mutagen
import numpy as np
import pytest
import soundfile

from bsmamba2 import AudioError, Separator
from bsmamba2.audio.array import Audio
from bsmamba2.files.song_file import SongFile
from support.albums import visible
from support.commands import StubCommand
from support.engines import StubEngine, Stubs
from support.files import integers
from support.fixtures import WriteSong


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


def test_a_name_too_long_for_its_stems_fails_before_the_work(
    run: StubCommand, engine: StubEngine, song: WriteSong
) -> None:
    result = run("separate", song("x" * 245 + ".wav", samples=500))
    assert result.exit_code == 2
    assert "allows 255: choose a shorter template, or rename the song" in result.stderr
    assert engine.lengths == []


def test_mixes_and_previews_next_to_their_songs_are_not_taken_for_songs(
    run: StubCommand, album: Path
) -> None:
    run("separate", album, "--mix", "vocals=0")
    run("separate", album, "--duration", "0.1")
    plan = run("separate", album, "--plan", "-o", album / "out", "--overwrite")
    assert len(plan.stdout.splitlines()) == 2 * 3
