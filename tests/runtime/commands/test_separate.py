"""``bsmamba2 separate``: what it prints, where, and with which exit status."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bsmamba2 import Cancelled
from bsmamba2.audio.array import Audio
from support.commands import ENVIRONMENT, STUB_PROGRAM, StubCommand, run_command, run_python
from support.engines import Stubs
from support.fixtures import WriteSong


@pytest.fixture
def run(stub: Stubs, monkeypatch: pytest.MonkeyPatch) -> StubCommand:
    return StubCommand(monkeypatch, stub.lower_half_band())


def test_the_paths_of_the_stems_are_printed(run: StubCommand, song: WriteSong) -> None:
    path = song(samples=500)
    result = run("separate", path)
    outputs = [path.with_name(f"song_{stem}.wav") for stem in ("vocals", "instrumental")]
    assert (result.exit_code, result.stdout.split()) == (0, [str(out) for out in outputs])
    assert all(out.exists() for out in outputs)


def test_auto_prints_the_device_that_it_chose(run: StubCommand, song: WriteSong) -> None:
    assert run("separate", song(samples=500)).stderr == "stub on cpu\n"
    assert run("separate", song("b.wav", samples=500), "--device", "cpu").stderr == ""


def test_the_shipped_model_is_announced_with_a_better_one(song: WriteSong) -> None:
    result = run_command("separate", song(samples=500), "--device", "cpu")
    assert result.exit_code == 0
    assert result.stderr.splitlines()[0].endswith("; for quality, -m bs_mamba2_vocals")


def test_json_is_one_object_per_song(run: StubCommand, song: WriteSong, tmp_path: Path) -> None:
    songs = [song("a.wav"), tmp_path / "none.wav", song("b.flac")]
    result = run("separate", *songs, "--json", "-o", tmp_path / "out")
    # A song that cannot be opened fails before the first one is separated.
    second, first, third = map(json.loads, result.stdout.splitlines())
    assert first["outputs"]["vocals"] == str(tmp_path / "out" / "a_vocals.wav")
    assert (third["song"], third["model"], third["device"]) == (str(songs[2]), "stub", "cpu")
    assert third["speed"] == pytest.approx(1 / third["seconds"], rel=0.05)
    assert "none.wav cannot be opened" in second["error"]


def test_all_songs_are_tried_and_failures_are_listed_at_the_end(
    run: StubCommand, song: WriteSong, tmp_path: Path
) -> None:
    (tmp_path / "text.wav").write_text("no audio")
    result = run("separate", tmp_path / "none.wav", tmp_path / "text.wav", song(samples=500))
    assert result.exit_code == 2
    assert len(result.stdout.split()) == 2
    none, text = result.stderr.splitlines()[-2:]
    assert none.startswith(f"bsmamba2: {tmp_path}/none.wav cannot be opened")
    assert text.startswith(f"bsmamba2: {tmp_path}/text.wav is not audio")


def test_options_determine_the_files(run: StubCommand, song: WriteSong) -> None:
    path = song(samples=500)
    options = ("--stem", "other", "--format", "flac", "--subtype", "pcm_24", "--overlap", "0.5")
    result = run("separate", path, *options)
    assert result.stdout.split() == [str(path.with_name("song_instrumental.flac"))]


def test_nothing_is_overwritten_without_overwrite(run: StubCommand, song: WriteSong) -> None:
    path = song(samples=500)
    assert run("separate", path).exit_code == 0
    again = run("separate", path)
    assert (again.exit_code, "--overwrite" in again.stderr) == (2, True)
    assert run("separate", path, "--overwrite").exit_code == 0


def test_an_overlap_in_the_unit_of_msst_is_explained(run: StubCommand, song: WriteSong) -> None:
    result = run("separate", song(), "--overlap", "2")
    assert (result.exit_code, "MSST's num_overlap 2 is 0.5" in result.stderr) == (2, True)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Cancelled("enough")])
def test_stopping_gives_status_130_and_leaves_no_file(
    run: StubCommand, stub: Stubs, song: WriteSong, error: BaseException
) -> None:
    def stop(chunk: Audio) -> Audio:
        raise error

    run.open_engine = lambda model: stub.of(stop)
    path = song()
    result = run("separate", path)
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (130, "stopped")
    assert list(path.parent.iterdir()) == [path]


def test_a_real_process_separates_and_prints_json(song: WriteSong) -> None:
    path = song(subtype="PCM_16", gain=1)
    result = run_python("-c", STUB_PROGRAM, "separate", str(path), "--json")
    assert (result.returncode, len(json.loads(result.stdout)["outputs"])) == (0, 2)
    assert result.stderr == "stub on cpu\n"


def test_a_real_process_prints_no_traceback_for_bad_songs(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    result = run_python("-c", STUB_PROGRAM, "separate", str(tmp_path / "empty.wav"), str(tmp_path))
    assert result.returncode == 2
    assert [line.partition(": ")[0] for line in result.stderr.splitlines()[2:]] == ["bsmamba2"] * 2


def test_ctrl_c_ends_a_real_process_and_leaves_no_file(song: WriteSong) -> None:
    path = song(samples=500_000)
    code = STUB_PROGRAM.replace("lambda chunk: ", "lambda chunk: time.sleep(1) or ")
    # In the background of a shell Ctrl-C is ignored, and processes inherit that.
    prelude = "import signal, time\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    arguments = [sys.executable, "-c", prelude + code, "separate", str(path)]
    with subprocess.Popen(arguments, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as process:
        while len(list(path.parent.iterdir())) < 3:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        status = process.wait(60)
        assert process.stderr is not None
        assert (status, process.stderr.read().split("\n")[-2]) == (130, "stopped")
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("known", [0, 1])
def test_a_plan_says_where_a_length_is_unknown(
    run: StubCommand, song: WriteSong, known: int
) -> None:
    pytest.importorskip("av")
    path = song("song.flac", samples=44100)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    path.write_bytes(content)
    others = [song("other.wav")] * known
    result = run("separate", path, *others, "--plan", "--json")
    said = "2 songs, 0:01 of audio; 1 song of unknown length" if known else "1 song, length unknown"
    assert f"{said}; " in result.stderr
    assert json.loads(result.stdout.splitlines()[0])["seconds"] is None
