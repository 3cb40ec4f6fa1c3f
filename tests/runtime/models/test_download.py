"""Downloads from a server that truncates, corrupts, stalls and redirects."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time

import filelock
import pytest

from bsmamba2 import ModelError
from bsmamba2.models import download as module
from bsmamba2.models.download import download
from support.server import (
    Server,
    corrupting,
    endless,
    failing,
    login_page,
    redirecting,
    restarting,
    stalling,
    truncating,
    without_ranges,
)

CONTENT = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def _hurry(monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0.0)
    monkeypatch.setattr(module, "TIMEOUT", (5.0, 0.3))
    monkeypatch.setattr(module, "PIECE", 1 << 14)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def fetch(tmp_path):
    """``fetch(mood, ...)``: downloads from a server of those moods; ``fetch.path`` is the file."""

    def run(*moods, sha256=SHA256):
        with Server(CONTENT, moods) as server:
            run.starts, run.arrived = server.starts, []
            download(server.url, run.path, len(CONTENT), sha256, run.arrived.append)

    run.path = tmp_path / "models" / "voice.ckpt"
    run.part = run.path.with_name(".voice.ckpt.part")
    return run


def left(fetch):
    """What lies in the folder, but for the lock."""
    return sorted(path.name for path in fetch.path.parent.iterdir() if path.suffix != ".lock")


def test_the_file_is_there_whole_and_alone(fetch):
    fetch()
    assert fetch.path.read_bytes() == CONTENT
    assert (left(fetch), fetch.starts) == (["voice.ckpt"], [0])


def test_progress_grows_to_the_size(fetch):
    fetch()
    assert fetch.arrived == sorted(fetch.arrived)
    assert fetch.arrived[-1] == len(CONTENT)


def test_what_is_there_and_right_is_not_fetched_again(fetch):
    fetch()
    fetch()
    assert fetch.starts == []


def test_what_is_there_and_wrong_is_replaced(fetch):
    fetch()
    fetch.path.write_bytes(bytes(len(CONTENT)))
    fetch()
    assert fetch.path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    "moods",
    [
        [truncating(1000)],
        [truncating(100_000), truncating(1), truncating(200_000)],
        [stalling(5000)],
        [failing(503), failing(429), truncating(7), failing(500)],
        [truncating(9), without_ranges],
    ],
    ids=["cut", "cut thrice", "stalled", "overloaded", "no ranges"],
)
def test_a_server_that_fails_for_a_while_is_asked_for_the_rest(fetch, moods):
    fetch(*moods)
    assert fetch.path.read_bytes() == CONTENT
    assert len(fetch.starts) == len(moods) + (moods[-1] is not without_ranges)


def test_a_server_that_starts_anew_each_time_is_not_asked_for_ever(fetch):
    flapping = [cut for _ in range(20) for cut in (restarting(200_000), restarting(9))]
    with pytest.raises(ModelError, match="cannot be downloaded .the connection broke"):
        fetch(*flapping)
    assert len(fetch.starts) < 10


def test_a_download_goes_on_where_an_earlier_one_stopped(fetch):
    with pytest.raises(ModelError, match=r"98,304 of 512,000 bytes have arrived and are kept"):
        fetch(truncating(6 << 14), *[failing(500)] * 9)
    assert left(fetch) == [".voice.ckpt.part"]
    fetch()
    assert (fetch.starts, fetch.path.read_bytes() == CONTENT) == ([6 << 14], True)


def test_what_lay_there_from_before_and_was_wrong_is_fetched_anew(fetch):
    fetch.part.parent.mkdir()
    fetch.part.write_bytes(bytes(1000))
    fetch()
    assert (fetch.starts, fetch.path.read_bytes() == CONTENT) == ([1000, 0], True)


def test_more_than_the_file_from_before_is_thrown_away(fetch):
    fetch.part.parent.mkdir()
    fetch.part.write_bytes(bytes(len(CONTENT) + 1))
    fetch()
    assert (fetch.starts, fetch.path.read_bytes() == CONTENT) == ([0], True)


def test_other_bytes_than_those_published_are_refused_and_removed(fetch):
    with pytest.raises(ModelError, match="not the file that was published"):
        fetch(corrupting)
    assert left(fetch) == []


def test_more_bytes_than_published_are_never_written(fetch):
    with pytest.raises(ModelError, match="longer than the 512,000 bytes"):
        fetch(endless)
    assert fetch.part.stat().st_size == 0


@pytest.mark.parametrize(
    ("mood", "message"),
    [
        (failing(404), "the server answered 404"),
        (login_page, "gives a web page where 512,000 bytes were expected"),
        (redirecting("ftp://127.0.0.1/x"), "cannot be downloaded: "),
        (redirecting("file:///etc/passwd"), "cannot be downloaded: "),
    ],
)
def test_what_no_second_try_mends_is_told_at_once(fetch, mood, message):
    with pytest.raises(ModelError, match=message):
        fetch(mood)
    assert len(fetch.starts) == 1


def test_a_redirection_is_followed_and_a_circle_is_not(fetch):
    with pytest.raises(ModelError, match="redirect"):
        fetch(*[redirecting(None)] * 20)
    fetch(redirecting("/elsewhere"), redirecting("/further"))
    assert fetch.path.read_bytes() == CONTENT


def test_no_server_is_told(fetch):
    with Server(CONTENT) as gone:
        pass
    with pytest.raises(ModelError, match="there is no connection.*0 of 512,000 bytes"):
        download(gone.url, fetch.path, len(CONTENT), SHA256, print)


def test_a_disk_without_room_is_told_before_the_download(fetch, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(1, 1, 7))
    with pytest.raises(ModelError, match="make room, or set BSMAMBA2_CACHE"):
        fetch()


def test_a_folder_that_cannot_be_written_is_told(fetch):
    fetch.path.parent.touch()
    with pytest.raises(ModelError, match="cannot be written .*set BSMAMBA2_CACHE"):
        fetch()


def test_two_at_once_do_not_mix(fetch):
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
download(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4], lambda arrived: None)
"""


def test_a_download_that_was_killed_leaves_no_file_and_goes_on(fetch):
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
    assert fetch.path.read_bytes() == CONTENT
    assert fetch.starts[0] > 0
