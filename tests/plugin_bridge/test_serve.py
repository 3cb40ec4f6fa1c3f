"""The plugin in a DAW, and the server that has the model: what happens when either misbehaves.

The DAW is the small host of ``support.vst3_host``; it plays as fast as it can, so what is to be wet
is played with the plugin told to wait.
"""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bsmamba2 import Separator
from bsmamba2.cli import main
from bsmamba2_pedalboard import plugin_path
from bsmamba2_pedalboard.server import BACK, HELLO, TO_MODEL, WELCOME, Server, ServerError
from support import vst3_host as host
from support.engines import StubEngine, half, restless

GAIN, MIX, STEM, WAIT = range(4)
TESTS = str(Path(__file__).parents[1])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where the server is to be; short, as the path of a socket must be."""
    path = tmp_path / "s"
    path.mkdir(mode=0o700)
    monkeypatch.setenv("BSMAMBA2_SERVE_DIR", str(path))
    return path


@contextmanager
def serving(separate=half, headroom_ms=50, **engine):
    server = Server(Separator(StubEngine(separate, **engine)), headroom_ms=headroom_ms)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join()


@pytest.fixture
def plugin(folder):
    plugin = host.Plugin(host.bundle())
    yield plugin
    plugin.close()


def rendered(plugin, audio, rate=44100, block=512):
    """As a host renders: aligned, and to the end."""
    plugin.set(WAIT, 1)
    latency = plugin.start(rate, block, host.OFFLINE)
    audio = np.pad(audio, ((0, 0), (0, latency)))
    parts = [plugin.process(audio[:, a : a + block]) for a in range(0, audio.shape[1], block)]
    return np.concatenate(parts, axis=1)[:, latency:]


def play(plugin, until, seconds=20):
    """Plays ones until the last sample of a block fulfils a condition; True if it did."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        output = plugin.process(np.ones((2, 441)))
        assert np.isfinite(output).all()
        if until(output[0, -1]):
            return True
        time.sleep(0.005)
    return False


def is_wet(sample):
    return abs(sample - 0.5) < 1e-3


def is_dry(sample):
    return sample == 1


def close(output, expected):
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-6)


# What it makes


@pytest.mark.parametrize("rate", [22050, 44100, 48000, 96000])
def test_a_render_is_the_separator_s_stream(plugin, noise, rate):
    audio = noise(2, 20000)
    with serving(restless):
        output = rendered(plugin, audio, rate)
    stream = Separator(StubEngine(restless)).stream(rate)
    close(output, stream.push(np.pad(audio, ((0, 0), (0, 20000))))["vocals"][:, :20000])


@pytest.mark.parametrize("block", [1, 64, 1000, 20000])
@pytest.mark.parametrize("channels", [1, 2])
def test_the_host_s_block_makes_no_difference(plugin, noise, block, channels):
    plugin.arrange(channels)
    with serving(restless):
        output = rendered(plugin, noise(channels, 3000), block=block)
        close(output, rendered(plugin, noise(channels, 3000), block=700))


def test_stem_gain_and_mix_are_the_host_s(plugin, noise):
    plugin.set(STEM, 1 / 16)  # the second
    plugin.set(GAIN, 1)  # 20 dB
    plugin.set(MIX, 0.5)
    with serving(lambda chunk: 0.25 * chunk[np.newaxis]):
        output = rendered(plugin, noise(2, 9000))
    # The gain comes in over the first block, before anything is heard.
    close(output, (0.5 + 0.5 * 10 * 0.75) * noise(2, 9000))


def test_two_instances_share_the_server(plugin, noise):
    other = host.Plugin(host.bundle())
    with serving(restless):
        first, second = rendered(plugin, noise(2, 5000)), rendered(other, noise(2, 5000))
    np.testing.assert_array_equal(first, second)
    other.close()


def test_what_is_played_becomes_wet_once_its_time_has_come(plugin):
    with serving():
        plugin.start()
        assert play(plugin, is_wet)


# When there is no answer


def test_without_a_server_it_is_dry_and_late_as_the_last_one_was(plugin, noise):
    with serving(headroom_ms=200) as server:
        pass
    audio = noise(2, 30000)
    latency = plugin.start()
    assert latency == -(-server.latency_ms * 44100 // 1000)
    output = plugin.process(audio)
    np.testing.assert_array_equal(output[:, latency:], audio[:, : 30000 - latency])


def test_a_host_is_told_when_a_server_comes_with_another_latency(plugin):
    assert plugin.start() == 0
    with serving() as server:
        assert play(plugin, lambda _: plugin.handler.restarts)
        assert plugin.handler.restarts == [1 << 3]
        assert plugin.start() == -(-server.latency_ms * 44100 // 1000)


def test_a_host_that_is_not_told_anew_hears_the_input_alone(plugin):
    assert plugin.start() == 0
    with serving():
        assert play(plugin, lambda _: plugin.handler.restarts)
        assert not play(plugin, lambda sample: not is_dry(sample), seconds=0.3)


def test_a_server_that_hangs_stops_no_audio_thread(plugin):
    release = threading.Event()

    def hang(chunk):
        release.wait(30)
        return half(chunk)

    with serving(hang):
        plugin.start()
        blocks = [plugin.process(np.ones((2, 4410)))[0, -1] for _ in range(100)]
        assert blocks[-1] == 1
        release.set()


def test_a_render_does_not_wait_where_nobody_will_answer(plugin, folder):
    (folder / "latency_ms").write_text("5")
    plugin.set(WAIT, 1)
    plugin.start(mode=host.OFFLINE)
    assert all(plugin.process(np.ones((2, 512)))[0, -1] == 1 for _ in range(50))


SERVER = """
import sys
sys.path.insert(0, {tests!r})
from bsmamba2 import Separator
from bsmamba2_pedalboard.server import Server
from support.engines import StubEngine, half
server = Server(Separator(StubEngine(half)), headroom_ms=50)
print("up", flush=True)
server.run()
"""


@contextmanager
def another_process():
    code = SERVER.format(tests=TESTS)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"up\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_server_killed_in_the_middle_leaves_it_dry_and_the_next_one_is_found(plugin):
    with another_process() as server:
        plugin.start()
        assert play(plugin, is_wet)
        server.send_signal(signal.SIGKILL)
        assert play(plugin, is_dry)
    with another_process():
        assert play(plugin, is_wet)


def test_the_stem_goes_and_comes_without_a_step(plugin):
    heard = []
    with another_process() as server:
        plugin.start()
        for wanted in (is_wet, is_dry):
            while not heard or not wanted(heard[-1][-1]):
                heard.append(plugin.process(np.ones((2, 441)))[0])
                time.sleep(0.005)
            server.kill()
    steps = np.abs(np.diff(np.concatenate(heard)))
    started = np.argmax(np.concatenate(heard) > 0)  # the signal itself begins with a step
    assert steps[started + 1 :].max() < 0.01


def test_a_stopped_server_leaves_the_latency_and_nothing_to_enter_by(folder):
    with serving():
        assert {path.name for path in folder.iterdir()} == {"socket", "token", "latency_ms", "lock"}
    assert {path.name for path in folder.iterdir()} == {"latency_ms", "lock"}


# Who may come in


def test_nothing_in_the_folder_is_another_user_s_to_read(folder):
    with serving():
        for path in (folder, *folder.iterdir()):
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0


def test_a_folder_that_others_can_open_is_refused(folder):
    folder.chmod(0o755)
    with pytest.raises(ServerError, match="chmod 700"):
        Server(Separator(StubEngine(half)), headroom_ms=0)


def test_a_second_server_is_refused(folder):
    with serving(), pytest.raises(ServerError, match="runs already"):
        Server(Separator(StubEngine(half)), headroom_ms=0)


def knock(folder, *messages):
    """What the server says to these bytes; empty where it closes."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(folder / "socket"))
        try:
            for message in messages:
                client.sendall(message)
            client.shutdown(socket.SHUT_WR)
            return client.recv(1 << 20)
        except OSError:
            return b""


def hello(folder, token=None, rate=44100.0, channels=2, version=1):
    own = bytes.fromhex((folder / "token").read_text())
    return HELLO.pack(b"bsm2", version, rate, channels, 0, own if token is None else token)


def lets_in(answer):
    return len(answer) >= WELCOME.size and WELCOME.unpack(answer[: WELCOME.size])[1] == 0


def test_only_the_token_lets_in(folder):
    with serving():
        assert lets_in(knock(folder, hello(folder)))
        for token in (bytes(32), os.urandom(32)):
            assert not lets_in(knock(folder, hello(folder, token)))


@pytest.mark.parametrize(
    "changes",
    [{"rate": float("nan")}, {"rate": 1e9}, {"channels": 0}, {"channels": 99}, {"version": 2}],
)
def test_a_hello_that_makes_no_sense_is_refused(folder, changes):
    with serving():
        assert not lets_in(knock(folder, hello(folder, **changes)))


@pytest.mark.parametrize("head", [(0, 0), (0, 8193), (0, 2**32 - 1)])
def test_a_message_out_of_bounds_ends_the_connection(folder, head):
    with serving():
        answer = knock(folder, hello(folder), TO_MODEL.pack(*head), bytes(1 << 16))
        assert len(answer) in (0, WELCOME.size)


def test_samples_that_are_not_finite_end_their_connection_alone(folder, plugin):
    with serving():
        knock(folder, hello(folder), TO_MODEL.pack(0, 4), b"\xff" * 32)
        plugin.start()
        assert play(plugin, is_wet)


@pytest.fixture(scope="module")
def flooded(tmp_path_factory):
    path = tmp_path_factory.mktemp("f")
    path.chmod(0o700)
    before = os.environ.get("BSMAMBA2_SERVE_DIR")
    os.environ["BSMAMBA2_SERVE_DIR"] = str(path)
    with serving():
        yield path
    os.environ.pop("BSMAMBA2_SERVE_DIR")
    if before is not None:
        os.environ["BSMAMBA2_SERVE_DIR"] = before


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(garbage=st.lists(st.binary(max_size=5000), max_size=5), known=st.booleans())
def test_a_flood_of_garbage_lets_nothing_in_and_the_server_stays(flooded, garbage, known):
    answer = knock(flooded, *([hello(flooded)] if known else []), *garbage)
    assert lets_in(answer) == known or not answer
    assert lets_in(knock(flooded, hello(flooded)))


def test_more_connections_than_it_takes_are_closed_and_none_is_kept(folder, plugin):
    with serving():
        clients = []
        for _ in range(60):
            client = socket.socket(socket.AF_UNIX)
            client.connect(str(folder / "socket"))
            client.settimeout(10)
            clients.append(client)
        assert clients[-1].recv(1) == b""
        for client in clients:
            client.close()
        plugin.start()
        assert play(plugin, is_wet)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_second_user_gets_no_answer_even_with_the_token(folder):
    code = (
        "import os, socket, sys; os.setuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX); s.settimeout(10); s.connect(sys.argv[1])\n"
        "s.sendall(bytes.fromhex(sys.argv[2])); print(len(s.recv(99)))"
    )
    with serving():
        words = [str(folder / "socket"), hello(folder).hex()]
        entered = [subprocess.run([sys.executable, "-c", code, *words], capture_output=True)]
        for path in (folder.parents[1], folder.parent, folder, folder / "socket"):
            path.chmod(0o777)  # as if every door were open
        entered.append(subprocess.run([sys.executable, "-c", code, *words], capture_output=True))
        assert entered[0].returncode != 0
        assert entered[1].stdout.strip() in (b"0", b"")


# Who answers


@contextmanager
def false_server(folder, answer):
    """Something else at the server's place, which answers every client with these bytes."""
    (folder / "token").write_text("00" * 32)
    (folder / "token").chmod(0o600)
    (folder / "latency_ms").write_text("10")
    stop = threading.Event()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket"))
        listener.listen()
        listener.settimeout(0.05)

        def serve():
            while not stop.is_set():
                try:
                    client, _ = listener.accept()
                    with client:
                        client.settimeout(0.2)
                        client.sendall(answer)
                        client.recv(1 << 16)
                except OSError:
                    continue

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        stop.set()
        thread.join()
    (folder / "socket").unlink()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n\r\n" * 100,
        WELCOME.pack(b"bsm2", 1, 441, 2),
        WELCOME.pack(b"bsm2", 0, 2**31, 2),
        WELCOME.pack(b"bsm2", 0, 441, 2) + BACK.pack(2**32 - 1) + bytes(100_000),
        WELCOME.pack(b"bsm2", 0, 441, 2) + os.urandom(100_000),
        WELCOME.pack(b"bsm2", 0, 441, 2) + BACK.pack(1) + b"\xff" * 8,
    ],
    ids=["silence", "another protocol", "refusal", "latency", "length", "garbage", "NaN"],
)
def test_a_server_that_answers_nonsense_leaves_it_dry(folder, plugin, answer):
    with false_server(folder, answer):
        plugin.start()
        for _ in range(60):
            output = plugin.process(np.full((2, 441), 0.25))
            assert np.isfinite(output).all()
            assert np.abs(output).max() <= 0.25
            time.sleep(0.005)


# Commands


def test_install_puts_a_plugin_where_it_was_told_that_starts_its_server(folder, tmp_path):
    model, target = tmp_path / "m.onnx", tmp_path / "plugins"
    model.touch()
    for _ in range(2):  # the second replaces the first
        arguments = ["plugin", "install", "--folder", str(target), "--model", str(model)]
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, result.output
    words = (target / "bsmamba2.vst3" / "Contents" / "Resources" / "serve").read_text().split("\n")
    assert words[:5] == [sys.executable, "-m", "bsmamba2", "serve", "--background"]
    assert words[words.index("--model") + 1] == str(model)
    assert [path.name for path in target.iterdir()] == ["bsmamba2.vst3"]
    host.Plugin(target / "bsmamba2.vst3").close()


def test_a_plugin_starts_the_server_that_it_was_told(folder, tmp_path):
    target, trace = tmp_path / "plugins", tmp_path / "started"
    CliRunner().invoke(main, ["plugin", "install", "--folder", str(target)])
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
        told = server.stderr.readline()
        assert told.startswith("serving tiny on cpu, ")
        latency = plugin.start()
        assert f", {latency / 44100:.3f} s behind" in told
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
