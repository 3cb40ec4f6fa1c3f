"""Downloads from a server that truncates, corrupts, stalls and redirects."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import filelock
import pytest
import requests

from bsmamba2 import ModelError
from bsmamba2.models import download as module
from bsmamba2.models.download import download
from support.server import (
    Behaviour,
    Server,
    corrupting,
    endless,
    failing,
    honest,
    login_page,
    redirecting,
    restarting,
    stalling,
    stating,
    truncating,
    without_ranges,
)

CONTENT = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE", 0.0)
    monkeypatch.setattr(module, "TIMEOUT", (5.0, 0.3))
    monkeypatch.setattr(module, "PIECE", 1 << 14)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


class Fetch:
    """``fetch(behaviour, ...)`` downloads a file from a server that behaves like this."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "voice.ckpt"
        self.part = folder / ".voice.ckpt.part"
        self.starts: list[int] = []
        """The first byte of each request of the latest download."""
        self.received: list[int] = []
        """The progress of the latest download."""

    def __call__(self, *behaviours: Behaviour) -> None:
        with Server(CONTENT, behaviours) as server:
            self.starts, self.received = server.starts, []
            download(server.url, self.path, len(CONTENT), SHA256, self.received.append)

    @property
    def is_right(self) -> bool:
        return self.path.read_bytes() == CONTENT

    def write_part(self, content: bytes) -> None:
        """Writes the leftover of an earlier download."""
        self.part.parent.mkdir()
        self.part.write_bytes(content)

    def names(self) -> list[str]:
        """The names of the files in the folder, without the lock."""
        files = self.path.parent.iterdir()
        return sorted(path.name for path in files if path.suffix != ".lock")


@pytest.fixture
def fetch(tmp_path: Path) -> Fetch:
    return Fetch(tmp_path / "models")


def test_the_file_is_complete_and_nothing_else_is_left(fetch: Fetch) -> None:
    fetch()
    assert fetch.is_right
    assert (fetch.names(), fetch.starts) == (["voice.ckpt"], [0])


def test_progress_grows_up_to_the_size(fetch: Fetch) -> None:
    fetch()
    assert fetch.received == sorted(fetch.received)
    assert fetch.received[-1] == len(CONTENT)


def test_a_correct_file_is_not_downloaded_again(fetch: Fetch) -> None:
    fetch()
    fetch()
    assert fetch.starts == []


def test_a_wrong_file_is_replaced(fetch: Fetch) -> None:
    fetch()
    fetch.path.write_bytes(bytes(len(CONTENT)))
    fetch()
    assert fetch.is_right


@pytest.mark.parametrize(
    "behaviours",
    [
        [truncating(1000)],
        [truncating(100_000), truncating(1), truncating(200_000)],
        [stalling(5000)],
        [failing(503), failing(429), truncating(7), failing(500)],
        [truncating(9), without_ranges],
    ],
    ids=["cut", "cut three times", "stalled", "overloaded", "no ranges"],
)
def test_a_temporary_failure_is_retried_from_the_last_byte(
    fetch: Fetch, behaviours: list[Behaviour]
) -> None:
    fetch(*behaviours)
    assert fetch.is_right
    assert len(fetch.starts) == len(behaviours) + (behaviours[-1] is not without_ranges)


def test_retries_end_if_the_server_always_restarts(fetch: Fetch) -> None:
    flapping = [cut for _ in range(20) for cut in (restarting(200_000), restarting(9))]
    with pytest.raises(ModelError, match="cannot be downloaded .the connection broke"):
        fetch(*flapping)
    assert len(fetch.starts) < 10


def test_a_download_resumes_where_an_earlier_one_stopped(fetch: Fetch) -> None:
    with pytest.raises(ModelError, match=r"98,304 of 512,000 bytes were received and are kept"):
        fetch(truncating(6 << 14), *[failing(500)] * 9)
    assert fetch.names() == [".voice.ckpt.part"]
    fetch()
    assert (fetch.starts, fetch.is_right) == ([6 << 14], True)


def test_wrong_bytes_of_an_earlier_download_are_downloaded_again(fetch: Fetch) -> None:
    fetch.write_part(bytes(1000))
    fetch()
    assert (fetch.starts, fetch.is_right) == ([1000, 0], True)


def test_a_leftover_longer_than_the_file_is_discarded(fetch: Fetch) -> None:
    fetch.write_part(bytes(len(CONTENT) + 1))
    fetch()
    assert (fetch.starts, fetch.is_right) == ([0], True)


def test_bytes_other_than_the_published_ones_are_refused_and_removed(fetch: Fetch) -> None:
    with pytest.raises(ModelError, match="is not the published file .its SHA-256 differs"):
        fetch(corrupting)
    assert fetch.names() == []


def test_more_bytes_than_published_are_never_written(fetch: Fetch) -> None:
    with pytest.raises(ModelError, match="must have 512,000 bytes; got more"):
        fetch(endless)
    assert fetch.part.stat().st_size == 0


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        (failing(404), "the server answered 404"),
        (login_page, "must have 512,000 bytes; got a web page"),
        (redirecting("ftp://127.0.0.1/x"), "cannot be downloaded: "),
        (redirecting("file:///etc/passwd"), "cannot be downloaded: "),
    ],
)
def test_a_permanent_failure_is_reported_without_a_retry(
    fetch: Fetch, behaviour: Behaviour, message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        fetch(behaviour)
    assert len(fetch.starts) == 1


def test_redirects_are_followed_but_not_in_a_circle(fetch: Fetch) -> None:
    with pytest.raises(ModelError, match="redirect"):
        fetch(*[redirecting(None)] * 20)
    fetch(redirecting("/elsewhere"), redirecting("/further"))
    assert fetch.is_right


def test_a_missing_server_is_reported(fetch: Fetch) -> None:
    with Server(CONTENT) as closed:
        pass
    with pytest.raises(ModelError, match="there is no connection.*0 of 512,000 bytes"):
        download(closed.url, fetch.path, len(CONTENT), SHA256, print)


def test_a_full_disk_is_reported_before_the_download(
    fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=7))
    with pytest.raises(ModelError, match="free some space, or set BSMAMBA2_CACHE"):
        fetch()
    assert fetch.starts == []


def test_a_folder_that_cannot_be_written_is_reported(fetch: Fetch) -> None:
    fetch.path.parent.touch()
    with pytest.raises(ModelError, match="cannot be written .*set BSMAMBA2_CACHE"):
        fetch()


def test_two_downloads_of_one_file_do_not_mix(fetch: Fetch) -> None:
    fetch.path.parent.mkdir()
    with (
        filelock.FileLock(fetch.path.with_name(".voice.ckpt.lock")),
        pytest.raises(ModelError, match="another process is downloading voice.ckpt"),
    ):
        fetch()


FETCH = """
import sys
from pathlib import Path
from bsmamba2.models.download import download
download(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4], lambda received: None)
"""


def test_a_killed_download_leaves_no_file_and_is_resumed(fetch: Fetch) -> None:
    with Server(CONTENT, [stalling(300_000)]) as server:
        arguments = [server.url, str(fetch.path), str(len(CONTENT)), SHA256]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        process = subprocess.Popen([sys.executable, "-c", FETCH, *arguments], env=environment)
        while not (fetch.part.exists() and fetch.part.stat().st_size):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait(20)
    assert not fetch.path.exists()
    fetch()
    assert fetch.is_right
    assert fetch.starts[0] > 0


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
@pytest.mark.parametrize("suffix", ["part", "lock"])
def test_a_link_under_a_helper_s_name_is_not_written_through(
    fetch: Fetch, tmp_path: Path, link: str, suffix: str
) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"content")
    fetch.part.parent.mkdir()
    getattr(fetch.part.with_suffix(f".{suffix}"), link)(precious)
    fetch()
    assert fetch.is_right
    assert precious.read_bytes() == b"content"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no named pipes")
@pytest.mark.parametrize("suffix", ["part", "lock"])
def test_a_pipe_under_a_helper_s_name_is_an_error_at_once(fetch: Fetch, suffix: str) -> None:
    fetch.part.parent.mkdir()
    os.mkfifo(fetch.part.with_suffix(f".{suffix}"))
    with pytest.raises(ModelError, match="it is a named pipe"):
        fetch()


def test_a_file_of_unknown_size_and_hash_is_as_long_as_the_server_says(fetch: Fetch) -> None:
    with Server(CONTENT, [failing(503), honest, truncating(100_000)]) as server:
        download(server.url, fetch.path, None, None, lambda received: None)
    assert fetch.is_right


@pytest.mark.parametrize("length", [None, "0", "99999999999999", "5e3", "-1"])
def test_a_file_of_unknown_size_is_bounded(fetch: Fetch, length: str | None) -> None:
    with (
        Server(CONTENT, [stating(length)]) as server,
        pytest.raises(ModelError, match="must state its size, at most 17,179,869,184 bytes; got "),
    ):
        download(server.url, fetch.path, None, None, lambda received: None)
    assert not fetch.path.parent.exists()


def test_a_server_that_never_states_a_size_is_reported(fetch: Fetch) -> None:
    with (
        Server(CONTENT, [failing(500)] * 9) as server,
        pytest.raises(ModelError, match="cannot be downloaded .the server answered 500"),
    ):
        download(server.url, fetch.path, None, None, lambda received: None)


@pytest.mark.parametrize("size", [len(CONTENT), None])
def test_a_redirect_from_https_to_http_is_refused(
    fetch: Fetch, monkeypatch: pytest.MonkeyPatch, size: int | None
) -> None:
    """Without a published SHA-256, https alone says that the first download is the right file."""
    answer = requests.Response()
    answer.status_code, answer.url, answer.raw = 200, "http://example.org/x.ckpt", io.BytesIO()
    monkeypatch.setattr(requests.Session, "get", lambda *_, **__: answer)
    with pytest.raises(ModelError, match="over https; got a redirect to http://example.org"):
        download("https://example.org/x.ckpt", fetch.path, size, None, lambda received: None)
    assert not fetch.path.exists()
