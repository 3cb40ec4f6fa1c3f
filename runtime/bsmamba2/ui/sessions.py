"""The jobs of all visitors, each known only to its visitor."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Sequence
from pathlib import Path

from bsmamba2.ui.job import Job, Settings, SharedModel


class Sessions:
    """Starts, finds and ends jobs. A visitor has one job: a new one replaces the last.

    Args:
        folder: where each job gets a folder, and visitors upload their songs.
        shared: separates.
    """

    def __init__(self, folder: Path, shared: SharedModel) -> None:
        self._folder = folder / "results"
        self._shared = shared
        self.uploads = folder / "uploads"
        self._jobs: dict[str, tuple[str, Job]] = {}
        self._lock = threading.Lock()

    def is_upload(self, song: Path) -> bool:
        """Whether a file was uploaded: a request may name any file of this machine."""
        return song.is_file() and song.resolve().is_relative_to(self.uploads.resolve())

    def start(self, session: str, songs: Sequence[Path], settings: Settings) -> tuple[str, Job]:
        """Starts a job; returns the token under which its files are found, and the job.

        Args:
            session: who the visitor is.
            songs, settings: see :class:`bsmamba2.ui.job.Job`.
        """
        self.close(session)
        token = secrets.token_urlsafe(24)  # nobody else can guess it
        job = Job(songs, settings, self._folder / token, self._shared)
        with self._lock:
            self._jobs[session] = token, job
        job.start()
        return token, job

    def cancel(self, session: str) -> None:
        """Stops the visitor's job, if there is one."""
        if found := self._jobs.get(session):
            found[1].cancel()

    def close(self, session: str) -> None:
        """Stops the visitor's job and removes its files."""
        with self._lock:
            found = self._jobs.pop(session, None)
        if found:
            found[1].close()

    def close_all(self) -> None:
        """Ends every job."""
        for session in list(self._jobs):
            self.close(session)

    def of_session(self, session: str) -> tuple[str, Job] | None:
        """Returns the visitor's token and job."""
        return self._jobs.get(session)

    def of_token(self, token: str) -> Job | None:
        """Returns the job whose files have this token."""
        with self._lock:
            jobs = list(self._jobs.values())
        return next((job for known, job in jobs if secrets.compare_digest(known, token)), None)
