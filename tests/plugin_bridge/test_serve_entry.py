"""Which clients the server accepts, and what the plugin does with a fake server."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bsmamba2 import Separator
from bsmamba2.audio.array import Audio
from bsmamba2_pedalboard import connection
from bsmamba2_pedalboard.connection import HELLO, REQUEST_HEADER, RESPONSE_HEADER, WELCOME
from bsmamba2_pedalboard.server import MAX_CONNECTIONS, THREAD_NAME, Server, ServerError
from support import vst3_host as host
from support.engines import StubEngine, half
from support.serving import is_wet, play, serving

# Clients


def test_other_users_cannot_read_anything_in_the_folder(folder: Path) -> None:
    with serving():
        for path in (folder, *folder.iterdir()):
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0


def test_a_folder_that_others_can_open_is_refused(folder: Path) -> None:
    folder.chmod(0o755)
    with pytest.raises(ServerError, match="chmod 700"):
        Server(Separator(StubEngine(half)), headroom_ms=0)


def test_a_second_server_is_refused(folder: Path) -> None:
    with serving(), pytest.raises(ServerError, match="already running"):
        Server(Separator(StubEngine(half)), headroom_ms=0)


def exchange(folder: Path, *messages: bytes) -> bytes:
    """Sends messages to the server and returns its response; empty if it closed the connection."""
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


def hello(
    folder: Path,
    token: bytes | None = None,
    rate: float = 44100.0,
    channels: int = 2,
    version: int = 2,
    model: str = "",
    lookahead_ms: int = 0,
) -> bytes:
    right_token = bytes.fromhex((folder / "token").read_text())
    sent_token = right_token if token is None else token
    return HELLO.pack(b"bsm2", version, rate, channels, lookahead_ms, sent_token, model.encode())


def is_accepted(answer: bytes) -> bool:
    return len(answer) >= WELCOME.size and WELCOME.unpack(answer[: WELCOME.size])[1] == 0


def test_only_the_right_token_is_accepted(folder: Path) -> None:
    with serving():
        assert is_accepted(exchange(folder, hello(folder)))
        for token in (bytes(32), os.urandom(32)):
            assert not is_accepted(exchange(folder, hello(folder, token)))


@pytest.mark.parametrize(
    "changes",
    [
        *({"rate": float("nan")}, {"rate": 1e9}, {"channels": 0}, {"channels": 99}),
        *({"version": 1}, {"model": "nothing"}, {"model": "stub", "lookahead_ms": 7}),
    ],
)
def test_invalid_hello_is_refused(folder: Path, changes: Any) -> None:
    with serving():
        assert not is_accepted(exchange(folder, hello(folder, **changes)))


def connected(folder: Path, *messages: bytes) -> socket.socket:
    """A client that has sent its messages and then says nothing."""
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(folder / "socket"))
    client.settimeout(10)
    try:
        for message in messages:
            client.sendall(message)
    except OSError:
        client.close()
        raise
    return client


def audio_message(samples: int = 8192, missed: int = 0) -> bytes:
    return REQUEST_HEADER.pack(samples, missed) + np.ones(2 * samples, np.float32).tobytes()


@pytest.mark.parametrize("kind", ["silent", "after its hello", "in a message"])
def test_silent_clients_make_room_for_another(folder: Path, kind: str) -> None:
    with serving(), contextlib.ExitStack() as held:
        messages = {
            "silent": [],
            "after its hello": [hello(folder)],
            "in a message": [hello(folder), audio_message(), REQUEST_HEADER.pack(8192, 0)],
        }[kind]
        for _ in range(MAX_CONNECTIONS + 3):
            held.enter_context(connected(folder, *messages))
        assert is_accepted(exchange(folder, hello(folder)))


def test_clients_that_send_audio_keep_their_connections(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GRACE_SECONDS", "CLIENT_TIMEOUT_SECONDS"):
        monkeypatch.setattr(connection, name, 60.0)
    with serving(), contextlib.ExitStack() as held:
        clients = [
            held.enter_context(connected(folder, hello(folder), audio_message()))
            for _ in range(MAX_CONNECTIONS)
        ]
        assert all(is_accepted(client.recv(WELCOME.size)) for client in clients)
        late = held.enter_context(connected(folder, hello(folder)))
        late.settimeout(1)
        with pytest.raises(TimeoutError):
            late.recv(1)
        for client in clients:
            client.sendall(audio_message())


def test_no_thread_runs_the_model_when_the_server_has_stopped(folder: Path) -> None:
    running, release = threading.Event(), threading.Event()

    def hold(chunk: Audio) -> Audio:
        running.set()
        release.wait(20)
        return half(chunk)

    with contextlib.ExitStack() as held, serving(hold, chunk=4096) as running_server:
        for _ in range(4):
            held.enter_context(connected(folder, hello(folder), audio_message()))
        assert running.wait(20)
        running_server.stop()
        threading.Timer(0.5, release.set).start()
    assert THREAD_NAME not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize("head", [(0, 0), (8193, 0), (2**32 - 1, 0)])
def test_message_of_invalid_size_ends_the_connection(folder: Path, head: tuple[int, int]) -> None:
    with serving():
        answer = exchange(folder, hello(folder), REQUEST_HEADER.pack(*head), bytes(1 << 16))
        assert len(answer) in (0, WELCOME.size)


def test_non_finite_samples_end_only_their_own_connection(
    folder: Path, plugin: host.Plugin
) -> None:
    with serving():
        exchange(folder, hello(folder), REQUEST_HEADER.pack(4, 0), b"\xff" * 32)
        plugin.start()
        assert play(plugin, is_wet)


@pytest.fixture(scope="module")
def flooded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("f")
    path.chmod(0o700)
    before = os.environ.get("BSMAMBA2_SERVE_DIR")
    os.environ["BSMAMBA2_SERVE_DIR"] = str(path)
    with serving():
        yield path
    os.environ.pop("BSMAMBA2_SERVE_DIR")
    if before is not None:
        os.environ["BSMAMBA2_SERVE_DIR"] = before


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(garbage=st.lists(st.binary(max_size=5000), max_size=5), known=st.booleans())
def test_garbage_is_refused_and_the_server_keeps_running(
    flooded: Path, garbage: list[bytes], known: bool
) -> None:
    answer = exchange(flooded, *([hello(flooded)] if known else []), *garbage)
    assert is_accepted(answer) == known or not answer
    assert is_accepted(exchange(flooded, hello(flooded)))


def test_excess_connections_are_closed_and_leave_room_for_others(
    folder: Path, plugin: host.Plugin
) -> None:
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
def test_another_user_gets_no_answer_even_with_the_token(folder: Path) -> None:
    code = (
        "import os, socket, sys; os.setuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX); s.settimeout(10); s.connect(sys.argv[1])\n"
        "s.sendall(bytes.fromhex(sys.argv[2])); print(len(s.recv(99)))"
    )
    with serving():
        words = [str(folder / "socket"), hello(folder).hex()]
        results = [subprocess.run([sys.executable, "-c", code, *words], capture_output=True)]
        for path in (folder.parents[1], folder.parent, folder, folder / "socket"):
            path.chmod(0o777)  # grants every permission
        results.append(subprocess.run([sys.executable, "-c", code, *words], capture_output=True))
        assert results[0].returncode != 0
        assert results[1].stdout.strip() in (b"0", b"")


# Reports


def test_missed_blocks_are_logged_once_for_each_render(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serving():
        for counts in ((0, 3, 3), (0, 0)):
            exchange(folder, hello(folder), *(audio_message(64, count) for count in counts))
    missed = [text for text in caplog.messages if "without stems" in text]
    assert missed == ["a plugin has output 3 blocks without stems"]


# Fake servers


@contextmanager
def fake_server(folder: Path, answer: bytes) -> Iterator[None]:
    """Runs another program on the server's socket; it sends these bytes to every client."""
    (folder / "token").write_text("00" * 32)
    (folder / "token").chmod(0o600)
    stop = threading.Event()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket"))
        listener.listen()
        listener.settimeout(0.05)

        def serve() -> None:
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
        WELCOME.pack(b"bsm2", 1, 441, 9, 2, 2),
        WELCOME.pack(b"bsm2", 0, 2**31, 9, 2, 2),
        WELCOME.pack(b"bsm2", 0, 441, 9, 2**31, 2),
        WELCOME.pack(b"bsm2", 0, 441, 9, 2, 3),
        WELCOME.pack(b"bsm2", 0, 441, 9, 1, 1) + RESPONSE_HEADER.pack(2**32 - 1) + bytes(100_000),
        WELCOME.pack(b"bsm2", 0, 441, 9, 1, 1) + os.urandom(100_000),
        WELCOME.pack(b"bsm2", 0, 441, 9, 1, 1) + RESPONSE_HEADER.pack(1) + b"\xff" * 8,
    ],
    ids=[
        *("silence", "another protocol", "refusal", "latency", "stems", "buses"),
        *("length", "garbage", "NaN"),
    ],
)
def test_nonsense_from_the_server_leaves_the_output_dry(
    folder: Path, plugin: host.Plugin, answer: bytes
) -> None:
    with fake_server(folder, answer):
        plugin.start()
        for _ in range(60):
            output = plugin.process(np.full((2, 441), 0.25))
            assert np.isfinite(output).all()
            assert np.abs(output).max() <= 0.25
            time.sleep(0.01)
