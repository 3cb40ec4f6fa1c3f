"""Batches: planned before the start, resumed after any end, and nobody's files are lost."""

from __future__ import annotations

import json
import os
import threading

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from bsmamba2 import AudioError, Separator, cli
from bsmamba2.batch.plan import find_songs
from support.engines import StubModel


@pytest.fixture
def separate(stub, monkeypatch):
    """``separate(...)``: the command with a stub in place of a model; ``separate.engine``."""

    def invoke(*args):
        monkeypatch.setattr(
            "bsmamba2.models.loaded_model.open_model", lambda *_, **__: StubModel(invoke.engine)
        )
        return CliRunner().invoke(cli.main, ["separate", *map(str, args)])

    invoke.engine = stub.lower_half_band()
    return invoke


@pytest.fixture
def album(tmp_path, noise):
    """Four songs in two folders, and what is none."""
    root = tmp_path / "album"
    for name in ("b.wav", "a.flac", "two/c.wav", "two/.hidden.wav", ".trash/d.wav"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / name, 0.1 * noise(2, 9000).T, 44100)
    (root / "cover.jpg").write_bytes(b"no song")
    return root


def visible(folder):
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(str(path) for path in found if not path.name.startswith("."))


def contents(folder):
    return {path: (folder / path).read_bytes() for path in visible(folder)}


def stems_of(*bases):
    return sorted(f"{base}_{stem}" for base in bases for stem in ("vocals", "instrumental"))


def test_a_folder_is_all_its_songs_and_its_folders_are_made_in_the_output(
    separate, album, tmp_path
):
    result = separate(album, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    made = [path.rpartition(".")[0] for path in visible(tmp_path / "out")]
    assert made == stems_of("a", "b", "two/c")


def test_a_song_that_is_named_twice_is_separated_once(separate, album, tmp_path):
    result = separate(album, album, album / "a.flac", album / "a.flac", "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert len(visible(tmp_path / "out")) == 6


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--format", "xyz"], "format must be one of"),
        (["--overlap", "2"], "overlap must be a fraction"),
        (["--stem", "bass"], "stem must be one of vocals, instrumental; got 'bass'"),
        (["--template", "{name}.{ext}"], "template must have {stem}"),
    ],
)
def test_what_no_song_can_have_is_said_once_for_all(separate, album, wrong, message):
    result = separate(album, *wrong)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith(f"bsmamba2: {message}")
    assert result.stderr.count(message) == 1


@pytest.mark.parametrize("name", ["", "x" * 300 + ".wav"])
def test_a_path_that_can_be_no_song_is_one_sentence(separate, name):
    result = separate(name)
    assert result.exit_code == 2
    assert "an empty one came" in result.stderr or "cannot be opened (File name" in result.stderr


def test_the_plan_is_said_before_the_start(separate, album, tmp_path):
    result = separate(album, "-o", tmp_path / "out", "--plan")
    assert "3 songs, 0:01 of audio; 6 files into 2 folders" in result.stderr
    assert result.stdout.split()[0] == str(tmp_path / "out/a_vocals.flac")
    assert not (tmp_path / "out").exists()


def test_stems_in_the_folder_of_their_songs_are_no_songs_of_a_second_run(separate, album):
    assert separate(album).exit_code == 0
    again = separate(album, "--overwrite")
    assert again.exit_code == 0, again.output
    assert len(visible(album)) == 5 + 6


def test_a_stem_that_is_named_is_a_song(separate, album):
    assert separate(album / "a.flac").exit_code == 0
    result = separate(album / "a.flac", album / "a_vocals.flac", "--overwrite")
    assert "a_vocals_vocals.flac" in result.stdout


def test_a_folder_without_songs_is_a_failure_and_the_rest_goes_on(separate, album, tmp_path):
    (tmp_path / "empty").mkdir()
    result = separate(tmp_path / "empty", album / "b.wav")
    assert result.exit_code == 2
    assert "empty has no songs: give a folder of .aac" in result.stderr
    assert len(result.stdout.split()) == 2


def test_resume_skips_what_is_done_and_does_the_rest(separate, album):
    separate(album / "a.flac")
    before = contents(album)
    runs = len(separate.engine.lengths)
    result = separate(album, "--resume")
    assert (result.exit_code, len(result.stdout.split())) == (0, 4)
    assert "2 songs, 0:00 of audio; 4 files into 2 folders; 1 done already" in result.stderr
    assert len(separate.engine.lengths) == 3 * runs
    assert before.items() <= contents(album).items()


def test_a_resumed_song_is_an_object_that_says_so(separate, album):
    separate(album / "a.flac")
    result = separate(album / "a.flac", "--resume", "--json")
    assert json.loads(result.stdout)["resumed"] is True


@pytest.mark.parametrize("change", ["song", "overlap", "model", "stem"])
def test_what_was_made_otherwise_is_never_replaced_unasked(separate, stub, album, noise, change):
    song, options = album / "b.wav", []
    separate(song)
    before = (album / "b_vocals.wav").read_bytes()
    if change == "song":
        soundfile.write(song, 0.2 * noise(2, 9000).T, 44100)
    elif change == "model":
        separate.engine = stub.half(name="another")
    else:
        options = {"overlap": ["--overlap", "0.5"], "stem": ["--stem", "vocals"]}[change]
    result = separate(song, "--resume", *options)
    assert (result.exit_code, "exists already" in result.stderr) == (2, True)
    assert (album / "b_vocals.wav").read_bytes() == before


def test_a_song_that_was_only_touched_is_done(separate, album):
    separate(album / "b.wav")
    os.utime(album / "b.wav", (1, 1))
    assert "1 done already" in separate(album / "b.wav", "--resume").stderr


def test_what_a_killed_run_left_is_made_again_to_the_same_bytes(separate, album):
    separate(album / "b.wav")
    whole = contents(album)
    (album / "b_vocals.wav").unlink()
    (album / ".b_vocals.wav.part").write_bytes(b"half")
    assert separate(album / "b.wav", "--resume").exit_code == 0
    assert contents(album) == whole
    assert not (album / ".b_vocals.wav.part").exists()


def test_a_file_that_took_the_place_of_a_stem_is_kept(separate, album):
    separate(album / "b.wav")
    (album / "b_vocals.wav").write_text("mine")
    result = separate(album / "b.wav", "--resume")
    assert (result.exit_code, "exists already" in result.stderr) == (2, True)
    assert (album / "b_vocals.wav").read_text() == "mine"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"bsmamba2": 1}', b"[" * 9999])
def test_a_damaged_record_is_none(separate, album, content):
    separate(album / "b.wav")
    (album / ".b.wav.bsmamba2.json").write_bytes(content)
    assert separate(album / "b.wav", "--resume").exit_code == 2
    assert separate(album / "b.wav", "--resume", "--overwrite").exit_code == 0


def test_a_record_cannot_point_out_of_its_folder(separate, album, tmp_path):
    separate(album / "b.wav")
    record = album / ".b.wav.bsmamba2.json"
    record.write_text(record.read_text().replace("b_vocals.wav", "../../x.wav"))
    assert "1 song, " in separate(album / "b.wav", "--resume", "--plan").stderr


def test_two_runs_on_one_song_at_once_are_a_clear_error(stub, song):
    path, told = song(samples=100_000), []
    separator = Separator(stub.half())

    def second(done, total):
        try:
            Separator(stub.half()).separate_file(path)
        except AudioError as error:
            told.append(str(error))

    made = separator.separate_file(path, progress=second)
    assert all("song_vocals.wav is being written by another run" in line for line in told)
    assert told
    assert soundfile.info(made["vocals"]).frames == 100_000


def test_two_runs_on_one_folder_at_once_lose_nothing(stub, song):
    paths = [song(f"{k}.wav", samples=60_000) for k in range(6)]
    separator, failed = Separator(stub.lower_half_band()), []

    def run(order):
        for path in order:
            try:
                separator.separate_file(path, resume=True)
            except AudioError as error:
                failed.append(str(error))

    threads = [threading.Thread(target=run, args=[order]) for order in (paths, paths[::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all("by another run" in line or "exists already" in line for line in failed)
    for path in paths:
        vocals, rest = (path.with_name(f"{path.stem}_{s}.wav") for s in ("vocals", "instrumental"))
        total = soundfile.read(vocals, dtype="int32")[0] + soundfile.read(rest, dtype="int32")[0]
        np.testing.assert_array_equal(total, soundfile.read(path, dtype="int32")[0])


def test_a_bug_in_one_song_is_status_1_and_the_rest_goes_on(separate, stub, album):
    def fail_once(chunk):
        if not failures:
            failures.append(chunk)
            raise ZeroDivisionError("by zero")
        return chunk[np.newaxis]

    failures = []
    separate.engine = stub.of(fail_once)
    result = separate(album)
    assert (result.exit_code, len(result.stdout.split())) == (1, 4)
    assert "a.flac: ZeroDivisionError: by zero: this is a bug" in result.stderr


def test_a_template_makes_folders(separate, album, tmp_path):
    separate(album, "-o", tmp_path / "out", "--template", "{name}/{stem}.{ext}")
    made = [path.rpartition(".")[0] for path in visible(tmp_path / "out")]
    assert made == sorted(
        f"{n}/{s}" for n in ("a", "b", "two/c") for s in ("vocals", "instrumental")
    )


def test_two_stems_of_one_name_are_refused(stub, song):
    with pytest.raises(AudioError, match="template must have {stem} to write 2 stems"):
        Separator(stub.half()).separate_file(song(), template="{name}.{ext}")


def test_songs_are_found_in_the_order_of_their_names(album):
    found = [song.name for song, _, _ in find_songs([album], None)]
    assert found == ["a.flac", "b.wav", "c.wav"]
