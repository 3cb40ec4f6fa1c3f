"""The page's folder on the disk: what visitors upload, and the results, up to a limit."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bsmamba2.errors import AudioError

HOUR_S = 3600
GB = 1e9


@dataclass(frozen=True)
class Limits:
    """What the page may keep, and for how long."""

    idle_s: float = 12 * HOUR_S
    """Time without use after which the songs and stems of a tab are removed."""
    disk_bytes: float = 20 * GB
    """Of all uploads and results together."""


class Storage:
    """The folder.

    Args:
        folder: is created.
        disk_bytes: the limit; at most half of what is free on the disk now.
    """

    def __init__(self, folder: Path, disk_bytes: float) -> None:
        self.results = folder / "results"
        self.uploads = folder / "uploads"
        for path in (self.results, self.uploads):
            path.mkdir(parents=True, exist_ok=True)
        self._limit = min(disk_bytes, shutil.disk_usage(folder).free / 2)
        self._reserved = 0.0
        self._lock = threading.Lock()

    def used(self) -> int:
        """Returns the bytes of all uploads and results."""
        return sum(_size(path) for path in self._files())

    def require(self, wanted: float) -> None:
        """Requires room for so many bytes.

        Raises:
            AudioError: there is less.
        """
        used = self.used() + self._reserved
        if used + wanted > self._limit:
            raise AudioError(
                f"this needs about {wanted / GB:.2f} GB, and this page has used "
                f"{used / GB:.2f} of its {self._limit / GB:.2f} GB: close other tabs of this page, "
                "remove songs, or start the page with more disk space"
            )

    @contextmanager
    def reserved(self, wanted: float) -> Iterator[None]:
        """Keeps room for so many bytes until the end of the block.

        Raises:
            AudioError: there is less.
        """
        with self._lock:
            self.require(wanted)
            self._reserved += wanted
        try:
            yield
        finally:
            with self._lock:
                self._reserved -= wanted

    def is_upload(self, path: Path) -> bool:
        """Whether a file was uploaded: a request may name any file of this machine."""
        return path.is_file() and path.resolve().is_relative_to(self.uploads.resolve())

    def remove(self, uploads: Iterable[Path]) -> None:
        """Removes uploads."""
        for path in uploads:
            path.unlink(missing_ok=True)
            with suppress(OSError):  # the folder has another name of the same song
                path.parent.rmdir()

    def abandoned(self, age_s: float) -> set[Path]:
        """Returns the uploads that have not changed for so long, finished or not."""
        before = time.time() - age_s
        return {path for path in _below(self.uploads) if _changed(path) < before}

    def _files(self) -> Iterator[Path]:
        yield from _below(self.uploads)
        yield from _below(self.results)


def _below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _size(path: Path) -> int:
    """Returns the size of a file; 0 if it has just been removed."""
    with suppress(OSError):
        return path.stat().st_size
    return 0


def _changed(path: Path) -> float:
    """Returns when a file changed; if it has just been removed, a time that is not yet."""
    with suppress(OSError):
        return path.stat().st_mtime
    return float("inf")
