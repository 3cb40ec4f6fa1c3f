"""Claims: which worker separates a song. They save work; no result depends on them."""

from __future__ import annotations

import json
import secrets
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from bsmamba2_cluster.storage import StorageError

if TYPE_CHECKING:
    from bsmamba2_cluster.storage import Storage


class Busy(StorageError):  # noqa: N818 - a state of the song, not a fault
    """Another worker separates the song, or died doing so. ``holder`` changes while it lives."""

    def __init__(self, holder: str) -> None:
        super().__init__("another run is separating it")
        self.holder = holder


class SetAside(StorageError):  # noqa: N818 - a state of the song, not a fault
    """The workers of this run died with the song too often."""


class Claim:
    """A claim that is renewed until :meth:`release`.

    Raises:
        Busy: another worker created the same claim first.
    """

    def __init__(self, destination: Storage, key: str, run: str, worker: str) -> None:
        self._destination, self._key = destination, key
        self._about = {"run": run, "worker": worker, "nonce": secrets.token_hex(8)}
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, beat_s: float) -> None:
        """Creates the claim and renews it in a thread."""
        if not self._destination.create(self._key, self._content(0)):
            raise Busy("")
        self._thread = threading.Thread(target=self._renew, args=(beat_s,), daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Ends the renewal and removes the claim."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        with suppress(StorageError):
            self._destination.delete([self._key])

    def _renew(self, beat_s: float) -> None:
        beat = 0
        while not self._ended.wait(beat_s):
            beat += 1
            with suppress(StorageError):
                self._destination.replace(self._key, self._content(beat))

    def _content(self, beat: int) -> bytes:
        return json.dumps({**self._about, "beat": beat}).encode()


def run_of(data: bytes | None) -> str:
    """Returns the run that made a claim; empty if the claim is damaged or gone."""
    try:
        return str(json.loads(data or b"{}").get("run", ""))
    except (ValueError, AttributeError):
        return ""
