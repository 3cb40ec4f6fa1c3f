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


def upload(sessions: Sessions, name: str) -> Path:
    """Returns a file that was uploaded, as gradio keeps it: in a folder of its content."""
    path = sessions.uploads / "0123" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"no audio")
    return path


def test_the_uploads_of_a_visitor_who_leaves_are_removed(sessions: Sessions) -> None:
    sessions.keep("a", [upload(sessions, "a.wav")])
    sessions.close("a")
    assert list(sessions.uploads.iterdir()) == []


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
