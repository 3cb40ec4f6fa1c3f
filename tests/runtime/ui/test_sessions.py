"""Visitors: each has one job, and finds no other's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bsmamba2 import Separator
from bsmamba2.ui.job import Phase, Settings, SharedModel
from bsmamba2.ui.sessions import Sessions
from bsmamba2.ui.storage import HOUR_S
from support.engines import Gate, Stubs
from support.fixtures import WriteSong


@pytest.fixture
def sessions(tmp_path: Path, stub: Stubs) -> Iterator[Sessions]:
    load = lambda model, device: Separator(stub.half(), load=False)  # noqa: E731
    made = Sessions(tmp_path, SharedModel(load))
    yield made
    made.close_all()


def start(sessions: Sessions, session: str, song: Path) -> str:
    token, job = sessions.start(session, [song], Settings("stub"))
    assert job.wait().phase is Phase.DONE
    return token


def test_two_visitors_have_different_tokens_jobs_and_folders(
    sessions: Sessions, song: WriteSong
) -> None:
    tokens = [start(sessions, name, song(f"{name}.wav", samples=500)) for name in "ab"]
    jobs = [sessions.of_token(token) for token in tokens]
    assert len(set(tokens)) == 2
    names = [job.status.results[0].name for job in jobs if job]
    assert names == ["a.wav", "b.wav"]
    assert [sessions.of_session(name) for name in "ab"] == list(zip(tokens, jobs, strict=True))


def test_a_visitor_who_never_began_has_nothing(sessions: Sessions) -> None:
    sessions.cancel("nobody")
    sessions.close("nobody")
    assert sessions.of_session("nobody") is None
    assert sessions.of_token("") is None


def test_a_new_job_replaces_the_last_one_and_its_files(sessions: Sessions, song: WriteSong) -> None:
    first = start(sessions, "a", song(samples=500))
    old = sessions.of_token(first)
    second = start(sessions, "a", song(samples=500))
    assert old is not None
    assert not old.folder.exists()
    assert sessions.of_token(first) is None
    assert sessions.of_token(second) is not None


def test_a_visitor_who_leaves_ends_only_the_own_job(sessions: Sessions, song: WriteSong) -> None:
    tokens = [start(sessions, name, song(samples=500)) for name in "ab"]
    sessions.close("a")
    remaining = sessions.of_token(tokens[1])
    assert sessions.of_token(tokens[0]) is None
    assert remaining is not None
    assert remaining.folder.exists()


def upload(sessions: Sessions, name: str) -> Path:
    """Returns a file that was uploaded, as gradio keeps it: in a folder of its content."""
    path = sessions.storage.uploads / "0123" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"no audio")
    return path


def test_the_uploads_of_a_visitor_who_leaves_are_removed(sessions: Sessions) -> None:
    sessions.keep("a", [upload(sessions, "a.wav")])
    sessions.close("a")
    assert list(sessions.storage.uploads.iterdir()) == []


def test_a_song_that_two_visitors_uploaded_remains_until_both_have_left(sessions: Sessions) -> None:
    path = upload(sessions, "a.wav")
    for name in "ab":
        sessions.keep(name, [path])
    sessions.close("a")
    assert path.exists()
    sessions.close("b")
    assert not path.exists()


def test_a_song_that_is_taken_off_the_page_is_removed_unless_the_job_has_it(
    sessions: Sessions,
) -> None:
    first, second = upload(sessions, "first.wav"), upload(sessions, "second.wav")
    sessions.keep("a", [first, second])
    sessions.start("a", [first], Settings("stub"))
    sessions.keep("a", [])
    assert (first.exists(), second.exists()) == (True, False)
    sessions.close("a")
    assert not first.exists()


def test_a_file_that_was_not_uploaded_is_never_removed(sessions: Sessions, tmp_path: Path) -> None:
    own = tmp_path / "own.wav"
    own.write_bytes(b"")
    sessions.keep("a", [own])
    sessions.close("a")
    assert own.exists()


def idle(sessions: Sessions, name: str) -> None:
    """Lets a visitor's last use be a day ago."""
    sessions._used[name] -= 24 * HOUR_S
    sessions.expire()


def test_a_visitor_who_is_idle_loses_songs_and_stems_and_is_told_once(
    sessions: Sessions, song: WriteSong
) -> None:
    path = upload(sessions, "a.wav")
    token, job = sessions.start("a", [path, song(samples=500)], Settings("stub"))
    assert job.wait().phase is Phase.DONE
    idle(sessions, "a")
    assert sessions.of_token(token) is None
    assert not job.folder.exists()
    assert not path.exists()
    assert [sessions.has_expired("a") for _ in range(2)] == [True, False]


def test_downloads_and_reports_are_use(sessions: Sessions, song: WriteSong) -> None:
    token = start(sessions, "a", song(samples=500))
    for use in (lambda: sessions.of_token(token), lambda: sessions.of_session("a")):
        sessions._used["a"] -= 24 * HOUR_S
        assert use() is not None
        sessions.expire()
    assert sessions.of_token(token) is not None


def test_a_job_that_runs_is_use(tmp_path: Path, song: WriteSong) -> None:
    gate = Gate()
    sessions = Sessions(tmp_path, SharedModel(lambda *_: Separator(gate.engine, load=False)))
    token, _ = sessions.start("a", [song()], Settings("stub"))
    assert gate.entered.wait(300)
    idle(sessions, "a")
    assert sessions.of_token(token) is not None
    gate.opened.set()
    sessions.close_all()


def test_a_visitor_who_begins_again_is_not_told(sessions: Sessions) -> None:
    sessions.keep("a", [upload(sessions, "a.wav")])
    idle(sessions, "a")
    sessions.keep("a", [upload(sessions, "b.wav")])
    assert not sessions.has_expired("a")


def test_an_upload_that_nobody_has_is_removed_when_it_is_old(sessions: Sessions) -> None:
    kept, old, new = (upload(sessions, f"{name}.wav") for name in ("kept", "old", "new"))
    for path in (kept, old):
        os.utime(path, (0, 0))
    sessions.keep("a", [kept])
    sessions.expire()
    assert [path.exists() for path in (kept, old, new)] == [True, False, True]


def test_a_token_cannot_be_guessed(sessions: Sessions, song: WriteSong) -> None:
    token = start(sessions, "a", song(samples=500))
    assert len(token) >= 32
    assert sessions.of_token(token[:-1]) is None


def test_only_files_that_were_uploaded_are_songs(sessions: Sessions, tmp_path: Path) -> None:
    folder = sessions.storage.uploads / "0123"
    folder.mkdir(parents=True)
    for path in (folder / "a.wav", tmp_path / "own.wav"):
        path.write_bytes(b"")
    (folder / "link.wav").symlink_to(tmp_path / "own.wav")
    assert sessions.storage.is_upload(folder / "a.wav")
    for path in (tmp_path / "own.wav", folder / "../../own.wav", folder / "link.wav", folder):
        assert not sessions.storage.is_upload(path)
    assert not sessions.storage.is_upload(folder / "gone.wav")
