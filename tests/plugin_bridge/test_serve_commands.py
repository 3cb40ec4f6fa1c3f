"""``bsmamba2 serve`` and ``bsmamba2 plugin``, as they are typed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from bsmamba2.cli import main
from bsmamba2_pedalboard import plugin_path
from support import vst3_host as host
from support.serving import is_dry, play


def test_install_puts_a_plugin_where_it_was_told_that_starts_its_server(folder, tiny, tmp_path):
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


def test_a_plugin_starts_the_server_that_it_was_told(folder, tiny, tmp_path):
    target, trace = tmp_path / "plugins", tmp_path / "started"
    CliRunner().invoke(main, ["plugin", "install", "--folder", str(target), "-m", str(tiny)])
    start = target / "bsmamba2.vst3" / "Contents" / "Resources" / "serve"
    start.write_text(f"/bin/sh\n-c\necho yes > {trace}\n")
    plugin = host.Plugin(target / "bsmamba2.vst3")
    plugin.start()
    assert play(plugin, lambda _: trace.exists())
    plugin.close()


def test_serve_serves_a_model_until_it_is_told_to_stop(plugin, tiny):
    words = ["--model", str(tiny), "--device", "cpu", "--lookahead-ms", "100"]
    command = [sys.executable, "-m", "bsmamba2", "serve", *words]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        # On a busy machine a warning that the model is slow may come first.
        told = next(line for line in server.stderr if line.startswith("serving "))
        assert told.startswith("serving tiny on cpu with ")
        latency = plugin.start()
        assert f" with a latency of {latency / 44100:.3f} s;" in told
        assert play(plugin, lambda sample: not is_dry(sample))
    finally:
        server.send_signal(signal.SIGTERM)
        _, said = server.communicate(timeout=30)
    assert (server.returncode, "Traceback" in said) == (0, False)


def test_serve_goes_to_the_background_and_ends_when_it_is_idle(folder, tiny):
    words = ["--model", str(tiny), "--device", "cpu", "--headroom-ms", "9", "--idle-exit", "0.5"]
    command = [sys.executable, "-m", "bsmamba2", "serve", *words, "--background"]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    for there in (True, False):
        assert eventually(lambda there=there: (folder / "socket").exists() == there)


def eventually(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def test_serve_says_in_a_line_what_is_wrong(folder):
    folder.chmod(0o755)
    result = CliRunner().invoke(main, ["serve", "--model", "nowhere.onnx"])
    assert result.exit_code == 2
    assert "Traceback" not in result.output


def test_path_prints_the_bundle():
    result = CliRunner().invoke(main, ["plugin", "path"])
    assert result.output.strip() == str(plugin_path())


@pytest.mark.parametrize(
    ("model", "mend"),
    [
        ("nowhere.ckpt", "check its name and folder"),
        ("bs_mamba2_vocal", "did you mean bs_mamba2_vocals?"),
        ("bs_mamba2_vocals", "bsmamba2 models fetch bs_mamba2_vocals"),
        ("/dev/null", "must be a file in one of"),
    ],
)
def test_install_refuses_a_model_that_its_server_could_not_load(tmp_path, monkeypatch, model, mend):
    monkeypatch.setenv("BSMAMBA2_CACHE", str(tmp_path / "cache"))
    words = ["plugin", "install", "--folder", str(tmp_path / "plugins"), "--model", model]
    result = CliRunner().invoke(main, words)
    assert (result.exit_code, mend in " ".join(result.output.split())) == (2, True)
    assert not (tmp_path / "plugins").exists()


@pytest.mark.parametrize("headroom", ["nan", "inf", "-1"])
def test_a_headroom_that_is_no_time_is_refused(folder, tiny, headroom):
    words = ["serve", "--model", str(tiny), "--device", "cpu", "--headroom-ms", headroom]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    assert "headroom_ms must be" in result.output
