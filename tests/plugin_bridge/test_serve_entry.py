"""Who may speak to the server, and what may speak in its place."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bsmamba2 import Separator
from bsmamba2_pedalboard.server import (
    HELLO,
    REQUEST_HEADER,
    RESPONSE_HEADER,
    WELCOME,
    Server,
    ServerError,
)
from support.engines import StubEngine, half
from support.serving import is_wet, play, serving

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
    with serving(), pytest.raises(ServerError, match="already running"):
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
        answer = knock(folder, hello(folder), REQUEST_HEADER.pack(*head), bytes(1 << 16))
        assert len(answer) in (0, WELCOME.size)


def test_samples_that_are_not_finite_end_their_connection_alone(folder, plugin):
    with serving():
        knock(folder, hello(folder), REQUEST_HEADER.pack(0, 4), b"\xff" * 32)
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
        WELCOME.pack(b"bsm2", 0, 441, 2) + RESPONSE_HEADER.pack(2**32 - 1) + bytes(100_000),
        WELCOME.pack(b"bsm2", 0, 441, 2) + os.urandom(100_000),
        WELCOME.pack(b"bsm2", 0, 441, 2) + RESPONSE_HEADER.pack(1) + b"\xff" * 8,
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
