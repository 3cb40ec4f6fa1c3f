"""Visitors: each has one job, and finds no other's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bsmamba2 import Separator
from bsmamba2.ui.job import Phase, Settings, SharedModel
from bsmamba2.ui.sessions import Sessions
from support.engines import Stubs
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


def test_a_token_cannot_be_guessed(sessions: Sessions, song: WriteSong) -> None:
    token = start(sessions, "a", song(samples=500))
    assert len(token) >= 32
    assert sessions.of_token(token[:-1]) is None


def test_only_files_that_were_uploaded_are_songs(sessions: Sessions, tmp_path: Path) -> None:
    folder = sessions.uploads / "0123"
    folder.mkdir(parents=True)
    for path in (folder / "a.wav", tmp_path / "own.wav"):
        path.write_bytes(b"")
    (folder / "link.wav").symlink_to(tmp_path / "own.wav")
    assert sessions.is_upload(folder / "a.wav")
    for path in (tmp_path / "own.wav", folder / "../../own.wav", folder / "link.wav", folder):
        assert not sessions.is_upload(path)
    assert not sessions.is_upload(folder / "gone.wav")
