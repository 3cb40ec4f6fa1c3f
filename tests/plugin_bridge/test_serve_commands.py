"""The commands ``bsmamba2 serve`` and ``bsmamba2 plugin``."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from bsmamba2.cli import main
from bsmamba2.devices.products import products
from bsmamba2_pedalboard import plugin_path
from bsmamba2_pedalboard.server import is_serving
from support import stub_server
from support import vst3_host as host
from support.serving import is_dry, play


def test_install_copies_a_plugin_with_its_start_command(
    folder: Path, tiny: Path, tmp_path: Path
) -> None:
    target = tmp_path / "plugins"
    for _ in range(2):  # the second replaces the first
        arguments = ["plugin", "install", "--folder", str(target), "--model", str(tiny)]
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, result.output
    words = (target / "bsmamba2.vst3" / "Contents" / "Resources" / "serve").read_text().split("\n")
    assert words[:5] == [sys.executable, "-m", "bsmamba2", "serve", "--background"]
    assert words[words.index("--model") + 1] == str(tiny)
    assert [path.name for path in target.iterdir()] == ["bsmamba2.vst3"]
    host.Plugin(target / "bsmamba2.vst3").close()


def test_plugin_runs_its_start_command(folder: Path, tiny: Path, tmp_path: Path) -> None:
    target, trace = tmp_path / "plugins", tmp_path / "started"
    CliRunner().invoke(main, ["plugin", "install", "--folder", str(target), "-m", str(tiny)])
    start = target / "bsmamba2.vst3" / "Contents" / "Resources" / "serve"
    start.write_text(f"/bin/sh\n-c\necho yes > {trace}\n")
    plugin = host.Plugin(target / "bsmamba2.vst3")
    plugin.start()
    assert play(plugin, lambda _: trace.exists())
    plugin.close()


def test_serve_runs_until_it_is_terminated(plugin: host.Plugin, tiny: Path) -> None:
    words = ["--model", str(tiny), "--device", "cpu", "--lookahead-ms", "100", "--speed", "fast"]
    command = [sys.executable, "-m", "bsmamba2", "serve", *words]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        # On a busy machine a warning that the model is slow may precede this line.
        assert server.stderr is not None
        line = next(line for line in server.stderr if line.startswith("serving "))
        assert line.startswith(f"serving tiny on cpu ({products('fast')}) with a ")
        latency = plugin.start()
        assert f" with a latency of {latency / 44100:.3f} s;" in line
        assert play(plugin, lambda sample: not is_dry(sample))
    finally:
        server.send_signal(signal.SIGTERM)
        _, errors = server.communicate(timeout=30)
    assert (server.returncode, "Traceback" in errors) == (0, False)


def test_serve_detaches_and_exits_when_idle(folder: Path, tiny: Path) -> None:
    words = ["--model", str(tiny), "--device", "cpu", "--headroom-ms", "9", "--idle-exit", "0.5"]
    command = [sys.executable, "-m", "bsmamba2", "serve", *words, "--background"]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    # On a busy machine it may have ended by now; it leaves this when it has served.
    assert (folder / "models").exists()
    assert eventually(lambda: not (folder / "socket").exists())


def test_two_commands_that_start_a_server_at_once_both_find_one(folder: Path) -> None:
    commands = [subprocess.Popen(stub_server.command(0.5, 0)) for _ in range(2)]
    assert [command.wait(60) for command in commands] == [0, 0]
    assert is_serving(folder)
    stub_server.stop(folder)


def eventually(condition: Callable[[], bool], seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def test_serve_reports_an_error_without_a_traceback(folder: Path) -> None:
    folder.chmod(0o755)
    result = CliRunner().invoke(main, ["serve", "--model", "nowhere.onnx"])
    assert result.exit_code == 2
    assert "Traceback" not in result.output


def test_path_prints_the_bundle() -> None:
    result = CliRunner().invoke(main, ["plugin", "path"])
    assert result.output.strip() == str(plugin_path())


@pytest.mark.parametrize(
    ("model", "fix"),
    [
        ("nowhere.ckpt", "check its name and folder"),
        ("bs_mamba2_vocal", "did you mean bs_mamba2_vocals?"),
        ("bs_mamba2_vocals", "bsmamba2 models fetch bs_mamba2_vocals"),
        ("/dev/null", "model must be a file in .onnx"),
    ],
)
def test_install_refuses_a_model_that_its_server_could_not_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, fix: str
) -> None:
    monkeypatch.setenv("BSMAMBA2_CACHE", str(tmp_path / "cache"))
    words = ["plugin", "install", "--folder", str(tmp_path / "plugins"), "--model", model]
    result = CliRunner().invoke(main, words)
    assert (result.exit_code, fix in " ".join(result.output.split())) == (2, True)
    assert not (tmp_path / "plugins").exists()


@pytest.mark.parametrize("headroom", ["nan", "inf", "-1"])
def test_invalid_headroom_is_refused(folder: Path, tiny: Path, headroom: str) -> None:
    words = ["serve", "--model", str(tiny), "--device", "cpu", "--headroom-ms", headroom]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    assert "--headroom-ms must be" in result.output


def test_an_installed_plugin_keeps_the_catalogue_that_its_model_may_be_in(
    folder: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.json").write_text('{"format": 1, "models": []}')
    target = tmp_path / "plugins"
    monkeypatch.chdir(tmp_path)
    arguments = ["plugin", "install", "--folder", str(target), "--model", str(tiny)]
    result = CliRunner().invoke(main, [*arguments, "--catalogue", "own.json"])
    assert result.exit_code == 0, result.output
    words = (target / "bsmamba2.vst3" / "Contents" / "Resources" / "serve").read_text().split("\n")
    assert words[words.index("--catalogue") + 1] == str(tmp_path / "own.json")


def test_serve_refuses_a_wrong_catalogue(folder: Path) -> None:
    result = CliRunner().invoke(main, ["serve", "--catalogue", "/nowhere.json"])
    assert (result.exit_code, "/nowhere.json is not a file" in result.stderr) == (2, True)
