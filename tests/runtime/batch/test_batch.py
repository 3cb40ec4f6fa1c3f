"""Batches: planned in advance, resumable after any interruption, never losing a user's file."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from bsmamba2 import AudioError, Separator
from bsmamba2.audio.array import Audio
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
