"""The jobs of all visitors, each known only to its visitor."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from bsmamba2.ui.job import Job, Settings, SharedModel


class Sessions:
    """Starts, finds and ends jobs. A visitor has one job: a new one replaces the last.

    What a visitor uploaded is removed with the visitor, or once neither the page nor the job has
    it. Two visitors who upload the same song share its file.

    Args:
        folder: where each job gets a folder, and visitors upload their songs.
        shared: separates.
    """

    def __init__(self, folder: Path, shared: SharedModel) -> None:
        self._folder = folder / "results"
        self._shared = shared
        self.uploads = folder / "uploads"
        self._jobs: dict[str, tuple[str, Job]] = {}
        self._songs: dict[str, set[Path]] = {}
        self._lock = threading.Lock()

    def is_upload(self, song: Path) -> bool:
        """Whether a file was uploaded: a request may name any file of this machine."""
        return song.is_file() and song.resolve().is_relative_to(self.uploads.resolve())

    def keep(self, session: str, songs: Sequence[Path]) -> None:
        """Keeps what a visitor has on the page, and the songs of the job; removes what was there.

        Args:
            session: who the visitor is.
            songs: what the page lists; paths that were not uploaded are left alone.
        """
        with self._lock:
            found = self._jobs.get(session)
            kept = set(filter(self.is_upload, songs))
            before = self._songs.get(session, set())
            self._songs[session] = kept | (before & set(found[1].songs) if found else set())
            self._remove(before)

    def start(self, session: str, songs: Sequence[Path], settings: Settings) -> tuple[str, Job]:
        """Starts a job; returns the token under which its files are found, and the job.

        Args:
            session: who the visitor is.
            songs, settings: see :class:`bsmamba2.ui.job.Job`.
        """
        self._end(session)
        token = secrets.token_urlsafe(24)  # nobody else can guess it
        job = Job(songs, settings, self._folder / token, self._shared)
        with self._lock:
            self._jobs[session] = token, job
            self._songs.setdefault(session, set()).update(filter(self.is_upload, songs))
        job.start()
        return token, job

    def cancel(self, session: str) -> None:
        """Stops the visitor's job, if there is one."""
        if found := self._jobs.get(session):
            found[1].cancel()

    def close(self, session: str) -> None:
        """Stops the visitor's job, and removes its files and the visitor's uploads."""
        self._end(session)
        with self._lock:
            self._remove(self._songs.pop(session, set()))

    def close_all(self) -> None:
        """Ends every job."""
        for session in {*self._jobs, *self._songs}:
            self.close(session)

    def _end(self, session: str) -> None:
        with self._lock:
            found = self._jobs.pop(session, None)
        if found:
            found[1].close()

    def _remove(self, songs: set[Path]) -> None:
        """Removes those songs that no visitor has."""
        for song in songs.difference(*self._songs.values()):
            song.unlink(missing_ok=True)
            with suppress(OSError):  # the folder has another name of the same song
                song.parent.rmdir()

    def of_session(self, session: str) -> tuple[str, Job] | None:
        """Returns the visitor's token and job."""
        return self._jobs.get(session)

    def of_token(self, token: str) -> Job | None:
        """Returns the job whose files have this token."""
        with self._lock:
            jobs = list(self._jobs.values())
        return next((job for known, job in jobs if secrets.compare_digest(known, token)), None)
