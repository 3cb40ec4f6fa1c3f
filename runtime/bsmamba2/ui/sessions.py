"""The jobs of all visitors, each known only to its visitor."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from bsmamba2.ui.job import Job, Settings, SharedModel
from bsmamba2.ui.storage import Limits, Storage


class Sessions:
    """Starts, finds and ends jobs. A visitor has one job: a new one replaces the last.

    What a visitor uploaded is removed with the visitor, or once neither the page nor the job has
    it. Two visitors who upload the same song share its file. What a visitor has not used for a long
    time is removed too.

    Args:
        folder: where each job gets a folder, and visitors upload their songs.
        shared: separates.
        limits: of what is kept.
    """

    def __init__(self, folder: Path, shared: SharedModel, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.storage = Storage(folder, self.limits.disk_bytes)
        self._shared = shared
        self._jobs: dict[str, tuple[str, Job]] = {}
        self._songs: dict[str, set[Path]] = {}
        self._used: dict[str, float] = {}
        self._expired: set[str] = set()
        self._lock = threading.Lock()

    def keep(self, session: str, songs: Sequence[Path]) -> None:
        """Keeps what a visitor has on the page, and the songs of the job; removes what was there.

        Args:
            session: who the visitor is.
            songs: what the page lists; paths that were not uploaded are left alone.
        """
        with self._lock:
            found = self._jobs.get(session)
            kept = set(filter(self.storage.is_upload, songs))
            before = self._songs.get(session, set())
            self._songs[session] = kept | (before & set(found[1].songs) if found else set())
            self._note_use(session)
            self._remove(before)

    def start(self, session: str, songs: Sequence[Path], settings: Settings) -> tuple[str, Job]:
        """Starts a job; returns the token under which its files are found, and the job.

        Args:
            session: who the visitor is.
            songs, settings: see :class:`bsmamba2.ui.job.Job`.
        """
        self._end(session)
        token = secrets.token_urlsafe(24)  # nobody else can guess it
        folder = self.storage.results / token
        job = Job(songs, settings, folder, self._shared, self.storage.require)
        with self._lock:
            self._jobs[session] = token, job
            self._songs.setdefault(session, set()).update(filter(self.storage.is_upload, songs))
            self._note_use(session)
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
            self._forget(session)
            self._expired.discard(session)

    def expire(self) -> None:
        """Ends the visitors who have used nothing for too long, and removes abandoned uploads."""
        now, ended = time.monotonic(), []
        with self._lock:
            for session, used in list(self._used.items()):
                token_and_job = self._jobs.get(session)
                if token_and_job and not token_and_job[1].status.has_ended:
                    self._used[session] = now
                elif now - used > self.limits.idle_s:
                    if token_and_job or self._songs.get(session):
                        self._expired.add(session)
                    ended += [self._jobs.pop(session)[1]] if token_and_job else []
                    self._forget(session)
            self._remove(self.storage.abandoned(self.limits.idle_s))
        for job in ended:
            job.close()

    def has_expired(self, session: str) -> bool:
        """Whether what a visitor had was removed since the last call."""
        with self._lock:
            was_there = session in self._expired
            self._expired.discard(session)
        return was_there

    def close_all(self) -> None:
        """Ends every job."""
        for session in {*self._jobs, *self._songs}:
            self.close(session)

    def _end(self, session: str) -> None:
        with self._lock:
            found = self._jobs.pop(session, None)
        if found:
            found[1].close()

    def _note_use(self, session: str) -> None:
        self._used[session] = time.monotonic()
        if self._songs.get(session):  # the visitor has begun again, and need not be told
            self._expired.discard(session)

    def _forget(self, session: str) -> None:
        self._used.pop(session, None)
        self._remove(self._songs.pop(session, set()))

    def _remove(self, songs: set[Path]) -> None:
        """Removes those songs that no visitor has."""
        self.storage.remove(songs.difference(*self._songs.values()))

    def of_session(self, session: str) -> tuple[str, Job] | None:
        """Returns the visitor's token and job, which are in use."""
        with self._lock:
            if found := self._jobs.get(session):
                self._note_use(session)
            return found

    def of_token(self, token: str) -> Job | None:
        """Returns the job whose files have this token, which is in use."""
        with self._lock:
            for session, (known, job) in self._jobs.items():
                if secrets.compare_digest(known.encode(), token.encode()):
                    self._note_use(session)
                    return job
        return None
