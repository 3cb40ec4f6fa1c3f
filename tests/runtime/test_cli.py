"""The command line: what it prints, where, and with which exit status."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib import metadata

import pytest
from click.testing import CliRunner

import bsmamba2
import bsmamba2.commands.info  # loaded before anything in its place is replaced
from bsmamba2 import Cancelled, ModelError, cli
from support.engines import StubModel


@pytest.fixture
def run(stub, monkeypatch):
    """``run("separate", ...)`` with a stub where the models are; ``run.engine`` replaces it."""

    def invoke(*args):
        monkeypatch.setattr(
            "bsmamba2.models.loaded_model.open_model",
            lambda model, **_: StubModel(invoke.open(model)),
        )
        return CliRunner().invoke(cli.main, [str(arg) for arg in args])

    invoke.open = lambda model: stub.lower_half_band()
    return invoke


def raising(error):
    def open_engine(model):
        raise error

    return open_engine


def test_the_paths_of_the_stems_are_printed(run, song):
    path = song(samples=500)
    result = run("separate", path)
    made = [path.with_name(f"song_{stem}.wav") for stem in ("vocals", "instrumental")]
    assert (result.exit_code, result.stdout.split()) == (0, [str(out) for out in made])
    assert all(out.exists() for out in made)


def test_auto_says_what_it_chose(run, song):
    assert run("separate", song(samples=500)).stderr == "stub on cpu\n"
    assert run("separate", song("b.wav", samples=500), "--device", "cpu").stderr == ""


def test_json_is_one_object_a_song(run, song, tmp_path):
    songs = [song("a.wav"), tmp_path / "none.wav", song("b.flac")]
    result = run("separate", *songs, "--json", "-o", tmp_path / "out")
    # What cannot be opened is known before the start.
    second, first, third = map(json.loads, result.stdout.splitlines())
    assert first["outputs"]["vocals"] == str(tmp_path / "out" / "a_vocals.wav")
    assert (third["song"], third["model"], third["device"]) == (str(songs[2]), "stub", "cpu")
    assert third["speed"] == pytest.approx(1 / third["seconds"], rel=0.05)
    assert "none.wav cannot be opened" in second["error"]


def test_all_songs_are_tried_and_the_failures_listed_at_the_end(run, song, tmp_path):
    (tmp_path / "text.wav").write_text("no audio")
    result = run("separate", tmp_path / "none.wav", tmp_path / "text.wav", song(samples=500))
    assert result.exit_code == 2
    assert len(result.stdout.split()) == 2
    none, text = result.stderr.splitlines()[-2:]
    assert none.startswith(f"bsmamba2: {tmp_path}/none.wav cannot be opened")
    assert text.startswith(f"bsmamba2: {tmp_path}/text.wav is not audio")


def test_options_reach_the_files(run, song):
    path = song(samples=500)
    options = ("--stem", "other", "--format", "flac", "--subtype", "pcm_24", "--overlap", "0.5")
    result = run("separate", path, *options)
    assert result.stdout.split() == [str(path.with_name("song_instrumental.flac"))]


def test_nothing_is_overwritten_unasked(run, song):
    path = song(samples=500)
    assert run("separate", path).exit_code == 0
    again = run("separate", path)
    assert (again.exit_code, "--overwrite" in again.stderr) == (2, True)
    assert run("separate", path, "--overwrite").exit_code == 0


def test_two_songs_of_one_name_do_not_overwrite_each_other(run, song, tmp_path):
    wav, flac = song("song.wav"), song("song.flac")
    result = run("separate", wav, flac, "--overwrite", "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert f"{flac} has the name of {wav}" in result.stderr


@pytest.mark.parametrize(
    "args", [["separate"], ["separate", "x", "--clip", "no"], ["separate", "--no"], ["sing"], []]
)
def test_a_wrong_use_of_the_command_is_status_2(run, args):
    assert run(*args).exit_code == 2


def test_an_overlap_of_msst_is_explained(run, song):
    result = run("separate", song(), "--overlap", "2")
    assert (result.exit_code, "MSST's num_overlap 2 is 0.5" in result.stderr) == (2, True)


def test_an_error_with_a_mend_is_one_line_and_status_2(run, song):
    run.open = raising(ModelError("there is no model: get one"))
    result = run("separate", song())
    assert (result.exit_code, result.stderr) == (2, "bsmamba2: there is no model: get one\n")


def test_a_bug_is_one_line_and_status_1(run, song):
    run.open = raising(ZeroDivisionError("by zero"))
    result = run("separate", song())
    assert result.exit_code == 1
    assert result.stderr.startswith("bsmamba2: ZeroDivisionError: by zero: this is a bug")
    assert "set BSMAMBA2_DEBUG=1" in result.stderr


def test_a_bug_shows_its_traceback_when_asked(run, song, monkeypatch):
    monkeypatch.setenv("BSMAMBA2_DEBUG", "1")
    run.open = raising(ZeroDivisionError("by zero"))
    assert isinstance(run("separate", song()).exception, ZeroDivisionError)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Cancelled("enough")])
def test_stopping_is_status_130_and_leaves_no_file(run, stub, song, error):
    def stop(chunk):
        raise error

    run.open = lambda model: stub.of(stop)
    path = song()
    result = run("separate", path)
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (130, "stopped")
    assert list(path.parent.iterdir()) == [path]


def test_a_missing_extra_answers_with_the_line_that_installs_it(run, monkeypatch):
    point = metadata.EntryPoint("export", "bsmamba2_export.none.at.all:export", cli.GROUP)
    points = {cli.GROUP: [point]}  # torch, if this imports it, asks for its own group
    monkeypatch.setattr(cli.metadata, "entry_points", lambda group: points.get(group, []))
    result = run("export", "model.ckpt", "--any", "thing")
    assert result.exit_code == 2
    assert result.stderr.endswith(': pip install "bsmamba2[export]"\n')
    assert 'Not installed: pip install "bsmamba2[export]"' in run("--help").stdout


def test_the_version_is_the_package_s(run):
    assert run("--version").stdout.split()[-1] == bsmamba2.__version__


ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def python(*args):
    """A real process, with nothing of pytest in it."""
    return subprocess.run(
        [sys.executable, *args], env=ENVIRONMENT, capture_output=True, text=True, timeout=60
    )


STUBBED = """
import numpy as np
import bsmamba2.models.loaded_model
from bsmamba2 import cli
from support.engines import StubEngine, StubModel
model = StubModel(StubEngine(lambda chunk: chunk[np.newaxis]))
bsmamba2.models.loaded_model.open_model = lambda *_, **__: model
cli.main(prog_name="bsmamba2")
"""


def test_a_real_process_separates_and_says_so(song):
    path = song(subtype="PCM_16", gain=1)
    result = python("-c", STUBBED, "separate", str(path), "--json")
    assert (result.returncode, len(json.loads(result.stdout)["outputs"])) == (0, 2)
    assert result.stderr == "stub on cpu\n"


def test_a_real_process_has_no_traceback_for_bad_songs(tmp_path):
    (tmp_path / "empty.wav").touch()
    result = python("-c", STUBBED, "separate", str(tmp_path / "empty.wav"), str(tmp_path))
    assert result.returncode == 2
    assert [line.partition(": ")[0] for line in result.stderr.splitlines()[2:]] == ["bsmamba2"] * 2


def test_ctrl_c_ends_a_real_process_without_a_trace(song):
    path = song(samples=500_000)
    code = STUBBED.replace("return chunk", "time.sleep(1); return chunk")
    # Tests that run in a shell's background would hand on that Ctrl-C is ignored there.
    heeded = "import signal, time\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    arguments = [sys.executable, "-c", heeded + code, "separate", str(path)]
    with subprocess.Popen(arguments, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as process:
        while len(list(path.parent.iterdir())) < 3:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert (process.wait(60), process.stderr.read().split("\n")[-2]) == (130, "stopped")
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.skipif(sys.platform == "win32", reason="a terminal")
def test_progress_is_on_the_terminal_and_results_are_in_the_pipe(song):
    paths = [str(song(name, samples=5000)) for name in ("a.wav", "b.wav")]
    terminal, end = os.openpty()
    command = [sys.executable, "-c", STUBBED, "separate", *paths, "--json"]
    environment = ENVIRONMENT | {"TERM": "xterm", "COLUMNS": "80"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=end) as process:
        os.close(end)
        shown = read_all(terminal)
        piped = process.stdout.read().decode()
    assert "2 of 2 songs" in shown
    assert [json.loads(line)["song"] for line in piped.splitlines()] == paths


def read_all(terminal):
    parts = []
    while True:
        try:
            parts.append(os.read(terminal, 1 << 16))
        except OSError:  # the other end is closed
            return b"".join(parts).decode()


def test_the_module_is_the_command():
    result = python("-m", "bsmamba2", "--help")
    assert (result.returncode, "separate" in result.stdout) == (0, True)


def test_importing_bsmamba2_is_light():
    heavy = "{'torch', 'onnx', 'onnxruntime', 'rich', 'click'}"
    code = f"import bsmamba2, sys; print({heavy} & set(sys.modules))"
    assert python("-c", code).stdout == "set()\n"
