"""``bsmamba2 separate``: what it prints, where, and with which exit status."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import soundfile

from bsmamba2 import Cancelled, DeviceError
from bsmamba2.audio.array import Audio
from bsmamba2.devices.device import Device
from bsmamba2.devices.products import products
from bsmamba2.engines.protocols import Engine
from support.commands import ENVIRONMENT, STUB_PROGRAM, StubCommand, run_command, run_python
from support.engines import StubModel, Stubs
from support.files import floats, integers, names
from support.fixtures import WriteSong
from support.models import random_weights


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


def test_assumed_settings_are_stated_and_a_yaml_gives_them(song: WriteSong, tmp_path: Path) -> None:
    path = tmp_path / "plain.safetensors"
    safetensors.numpy.save_file(random_weights(), path)
    yaml = tmp_path / "plain.yaml"
    yaml.write_text(
        "audio: {chunk_size: 44100}\nmodel: {stft_hop_length: 441}\n"
        "training: {target_instrument: vocals}"
    )
    arguments = ["separate", song(samples=500), "-m", path, "--device", "cpu", "--plan"]
    stated = "plain: assumed stems vocals; hop 512; chunk 4 s; --config YAML states them"
    assert run_command(*arguments).stderr.splitlines()[0] == stated
    assert "plain: assumed" not in run_command(*arguments, "--config", yaml).stderr


def test_json_is_one_object_per_song(run: StubCommand, song: WriteSong, tmp_path: Path) -> None:
    songs = [song("a.wav"), tmp_path / "none.wav", song("b.flac")]
    result = run("separate", *songs, "--json", "-o", tmp_path / "out")
    # A song that cannot be opened fails before the first one is separated.
    second, first, third = map(json.loads, result.stdout.splitlines())
    assert first["outputs"]["vocals"] == str(tmp_path / "out" / "a_vocals.wav")
    assert (third["song"], third["model"], third["device"]) == (str(songs[2]), "stub", "cpu")
    assert third["products"] == products("exact")
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


@pytest.mark.parametrize("kind", ["missing", "no audio", "empty folder"])
def test_without_a_song_to_separate_no_model_is_loaded_or_announced(
    run: StubCommand,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    def load(model: StubModel, device: Device, **_: Any) -> Engine:
        raise AssertionError("loaded")

    monkeypatch.setattr(StubModel, "chunk_engine", load)
    path = tmp_path / "song.wav"
    if kind == "no audio":
        path.write_text("no audio")
    elif kind == "empty folder":
        path.mkdir()
    result = run("separate", path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert re.fullmatch(f"bsmamba2: .*{re.escape(str(path))}.*\n", result.stderr)


def test_a_plan_needs_no_loaded_model(
    run: StubCommand, song: WriteSong, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StubModel, "chunk_engine", None)
    result = run("separate", song(samples=500), "--plan")
    assert (result.exit_code, len(result.stdout.split())) == (0, 2)


def test_a_model_that_cannot_be_loaded_is_one_error_and_not_one_for_each_song(
    run: StubCommand, song: WriteSong, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(model: StubModel, device: Device, **_: Any) -> Engine:
        raise DeviceError("the device is gone: use another")

    monkeypatch.setattr(StubModel, "chunk_engine", load)
    result = run("separate", song("a.wav"), song("b.wav"))
    assert (result.exit_code, result.stderr) == (2, "bsmamba2: the device is gone: use another\n")


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
    assert (result.exit_code, result.stderr.splitlines()[-2:]) == (
        130,
        ["to continue, repeat the command with --resume", "stopped"],
    )
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
    assert [line.partition(": ")[0] for line in result.stderr.splitlines()[1:]] == ["bsmamba2"] * 2


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


HOSTILE_NAME = "a\x1b[31m\x07\nb"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such names")
@pytest.mark.parametrize("options", [[], ["--plan"], ["--resume"], ["--json"]])
def test_a_name_with_escape_codes_and_line_breaks_is_printed_harmlessly(
    run: StubCommand, song: WriteSong, tmp_path: Path, options: list[str]
) -> None:
    path = song("song.wav", samples=500, gain=4.0)  # it exceeds full scale, which is logged
    path.rename(tmp_path / f"{HOSTILE_NAME}.wav")
    (tmp_path / f"{HOSTILE_NAME}.flac").write_text("no song")
    song("other.wav", samples=500).with_suffix(".txt").touch()
    result = run("separate", tmp_path, "-o", tmp_path / f"out{HOSTILE_NAME}", *options)
    assert "a" in result.stdout
    for line in (result.stdout + result.stderr).splitlines():
        assert line.isprintable(), line
    # Each line is about a file as a whole.
    assert all("b" in line.partition("a�")[2] for line in result.stdout.split("\n") if "a�" in line)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such names")
def test_a_missing_song_and_a_wrong_option_with_such_a_name_are_one_line(
    run: StubCommand, tmp_path: Path
) -> None:
    for arguments in (
        [tmp_path / HOSTILE_NAME],
        ["x", "--clip", HOSTILE_NAME],
        ["x", f"--{HOSTILE_NAME}"],
    ):
        stderr = run("separate", *arguments).stderr
        assert stderr.removesuffix("\n").splitlines()[-1].isprintable()
        assert "\x1b" not in stderr


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


def piped(content: bytes, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Runs ``bsmamba2 separate`` in a process whose standard streams are pipes."""
    return subprocess.run(
        [sys.executable, "-c", STUB_PROGRAM, "separate", *arguments],
        input=content,
        capture_output=True,
        env=ENVIRONMENT | {"BSMAMBA2_CACHE": os.environ["BSMAMBA2_CACHE"]},
        timeout=60,
    )


@pytest.mark.parametrize("size", [None, 0, 0xFFFFFFFF])
def test_a_wav_goes_through_the_standard_streams(song: WriteSong, size: int | None) -> None:
    path = song("song.wav", "PCM_16")
    content = bytearray(path.read_bytes())
    if size is not None:
        content[40:44] = size.to_bytes(4, "little")
    result = piped(bytes(content), "-", "-o", "-", "--stem", "vocals")
    assert (result.returncode, b"stub on cpu" in result.stderr) == (0, True)
    output, rate = soundfile.read(io.BytesIO(result.stdout), always_2d=True)
    assert rate == 44100
    np.testing.assert_allclose(output, floats(path), atol=1e-6)  # the stub passes everything


def test_standard_output_can_be_a_mix_of_a_part_in_another_format(song: WriteSong) -> None:
    path = song("song.flac", "PCM_16")
    options = ("-o", "-", "--mix", "vocals=-6", "--start", "0.5", "--subtype", "pcm_16")
    output, _ = soundfile.read(io.BytesIO(piped(b"", str(path), *options).stdout))
    np.testing.assert_allclose(output, 10 ** (-6 / 20) * floats(path)[22050:], atol=2**-15)


def test_standard_input_can_become_files(song: WriteSong, tmp_path: Path) -> None:
    path = song("song.wav", "PCM_24")
    result = piped(path.read_bytes(), "-", "-o", str(tmp_path / "out"))
    written = [Path(line) for line in result.stdout.decode().splitlines()]
    assert names(tmp_path / "out") == ["stdin_instrumental.wav", "stdin_vocals.wav"]
    np.testing.assert_array_equal(sum(map(integers, written)), integers(path))


def test_a_reader_that_has_ended_is_no_error(song: WriteSong) -> None:
    path = song("song.wav", samples=44100 * 20)
    command = [sys.executable, "-c", STUB_PROGRAM, "separate", str(path), "--stem", "vocals"]
    with subprocess.Popen(
        [*command, "-o", "-"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT
    ) as run:
        assert run.stdout
        assert run.stderr
        assert run.stdout.read(4) == b"RIFF"
        run.stdout.close()
        assert run.stderr.read() == b"stub on cpu\n"
    assert run.returncode == 0


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        (b"", ["-", "-o", "-", "--stem", "vocals"], b"standard input: it is empty: pipe a WAV"),
        (b"fLaC", ["-", "-o", "x"], b"standard input: it must be a WAV; got FLAC"),
        (b"", ["-", "-o", "-"], b"standard output takes one stem or a mix; got vocals"),
        (b"", ["-", "--resume"], b"--resume needs songs and stems that are files; got -"),
        (b"", ["-", "-o", "-", "--json"], b"--json needs songs and stems that are files"),
        (b"", ["-", "-o", "-", "--stem", "vocals", "--format", "flac"], b"format must be wav"),
    ],
)
def test_what_a_standard_stream_cannot_do_is_one_sentence(
    content: bytes, arguments: list[str], message: bytes
) -> None:
    result = piped(content, *arguments)
    assert (result.returncode, result.stdout) == (2, b"")
    assert message in result.stderr.splitlines()[-1]


def test_one_command_makes_a_karaoke_mp3(run: StubCommand, song: WriteSong, tmp_path: Path) -> None:
    output = tmp_path / "new" / "karaoke.mp3"
    options = ("--mix", "vocals=-14,instrumental=0", "--bitrate", "192")
    result = run("separate", song("song.flac"), *options, "-o", output)
    assert (result.exit_code, result.stdout) == (0, f"{output}\n")
    assert soundfile.info(output).subtype == "MPEG_LAYER_III"
    assert names(output.parent) == [".song.flac_mix.bsmamba2.json", "karaoke.mp3"]


def test_one_stem_can_go_to_a_file_of_any_name(
    run: StubCommand, song: WriteSong, tmp_path: Path
) -> None:
    output = tmp_path / "{my} take.AIF"
    assert run("separate", song(), "--stem", "vocals", "-o", output).stdout == f"{output}\n"
    assert soundfile.info(output).format == "AIFF"


def test_a_preview_states_its_length_and_a_time_after_the_end_is_refused(
    run: StubCommand, song: WriteSong
) -> None:
    path = song()
    plan = run("separate", path, "--start", "0:00.25", "--duration", "0.5", "--plan", "--json")
    record = json.loads(plan.stdout)
    assert record["seconds"] == 0.5
    assert record["planned"]["vocals"].endswith("song_vocals_0.25s-0.75s.wav")
    refused = run("separate", path, "--start", "2:00")
    assert (
        refused.exit_code,
        "--start must be before the end of the song, 1 s; got 120" in (refused.stderr),
    ) == (2, True)
