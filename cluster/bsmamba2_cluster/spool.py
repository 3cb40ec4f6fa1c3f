"""A bounded folder on a worker's disk, for one song and its stems at a time."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from bsmamba2.errors import AudioError

if TYPE_CHECKING:
    from collections.abc import Iterator

GIB = 1 << 30
_NAME = "bsmamba2-spool-"


class Spool:
    """A folder that ends with its process; what killed processes left is removed first.

    Args:
        limit_gib: the most that a song and its stems may take.
        folder: where. Default: ``BSMAMBA2_SPOOL``, or the system's folder for temporary files.
    """

    def __init__(self, limit_gib: float, folder: Path | None = None) -> None:
        self.limit_bytes = int(limit_gib * GIB)
        top = folder or Path(os.environ.get("BSMAMBA2_SPOOL") or tempfile.gettempdir())
        top.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(top):
            for old in top.glob(f"{_NAME}*"):
                _remove_if_left(old)
            self._folder = Path(tempfile.mkdtemp(prefix=_NAME, dir=top))
            # The lock ends with the process, even if it is killed.
            self._lock = os.open(self._folder, os.O_RDONLY)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    @contextmanager
    def song(self) -> Iterator[tuple[Path, Path]]:
        """Yields an empty folder for a song and one for its stems, and removes both."""
        folders = self._folder / "song", self._folder / "stems"
        try:
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
            yield folders
        finally:
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)

    def require_room(self, needed_bytes: int) -> None:
        """Requires a song and its stems, as large as its header announces them, to fit.

        Raises:
            AudioError: they do not.
        """
        if needed_bytes > self.limit_bytes:
            raise AudioError(
                f"the song and its stems need up to {needed_bytes / GIB:.1f} GiB on the worker's "
                f"disk, and spool_gib is {self.limit_bytes / GIB:g}: raise it"
            )

    def require_within(self) -> None:
        """Requires what is there now to be within the limit.

        Raises:
            AudioError: it is more.
        """
        used = sum(path.stat().st_size for path in self._files())
        if used > self.limit_bytes:
            raise AudioError(
                f"the song and its stems need more than the {self.limit_bytes / GIB:g} GiB of "
                "spool_gib on the worker's disk: raise it"
            )

    def _files(self) -> Iterator[Path]:
        for path in self._folder.rglob("*"):
            with suppress(FileNotFoundError):
                if path.is_file():
                    yield path

    def folder(self, name: str) -> Path:
        """Creates a folder that is kept until the spool is closed."""
        path = self._folder / name
        path.mkdir()
        return path

    def close(self) -> None:
        """Removes the folder."""
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


@contextmanager
def _one_at_a_time(top: Path) -> Iterator[None]:
    lock = os.open(top, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _remove_if_left(folder: Path) -> None:
    """Removes the folder of a process that has ended."""
    with suppress(OSError):
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)
