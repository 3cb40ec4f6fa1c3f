"""A file on its way to its name: whole before it is seen, and made by one run at a time.

    .song_vocals.flac.part  ── whole, on the disk ──▶  song_vocals.flac

The process that makes it holds a lock on it (flock), which ends with the process, however that
ends. So a part that is held is being made, and a second run can say so; one that is not was left by
a run that was killed, and the next run takes it over. Where there are no such locks (Windows, some
network folders) every part has a name of its own instead, and those of killed runs stay.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from pathlib import Path

_FLAGS = os.O_CREAT | os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


class WriteInProgress(FileExistsError):  # noqa: N818 - named for what it tells
    """Another run, or another thread of this one, makes a file of the same name."""


class PartFile:
    """A file on its way to ``path``, under a temporary name beside it.

    Whoever makes one calls :meth:`discard` in the end, come what may. Ctrl-C comes at any moment,
    inside a call of the system too: so what is to be removed is seen on the disk, and not kept in
    mind.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.temporary = self._before = path.with_name(f".{path.name}.part")
        self._held = -1
        self._published = False

    def open(self) -> None:
        """Makes the file, empty.

        Raises:
            WriteInProgress: another run makes it.
            OSError: the folder does not take it.
        """
        while not self._take():
            pass

    def set_aside(self) -> None:
        """Takes another temporary name, so that the file can be made anew beside this one.

        Raises:
            OSError: the folder does not take it.
        """
        self._before, self.temporary = self.temporary, self._name_of_its_own()
        self._before.replace(self.temporary)

    def descriptor(self) -> int:
        """Of the file, for a writer that closes it."""
        return os.dup(self._held)

    def sync(self) -> None:
        """Waits until all that was written is on the disk.

        Raises:
            OSError: it does not get there.
        """
        os.fsync(self._held)

    def publish(self, overwrite: bool) -> None:
        """Gives the file its name, at once.

        Raises:
            FileExistsError: there is one of that name, and it may not be replaced.
            OSError: the folder does not take it.
        """
        if fcntl is None:  # pragma: no cover - Windows renames no open file
            self._release()
        if overwrite:
            self.temporary.replace(self.path)
        else:
            _rename_to_new(self.temporary, self.path)
        self._published = True
        _sync_folder(self.path.parent)

    def withdraw(self) -> None:
        """Takes the name away again, if it was given."""
        if self._published or (self._held >= 0 and _is_at(self._held, self.path)):
            self.path.unlink(missing_ok=True)

    def discard(self) -> None:
        """Removes the file, unless it has its name or another run makes it."""
        with suppress(OSError):  # it is not there, or nobody may remove it
            if self._held < 0:
                self._held = os.open(self.temporary, _FLAGS & ~os.O_CREAT)
            locks = _hold(self._held)
            names = {self.temporary, self._before}
            ours = [name for name in names if _is_at(self._held, name)]
            if not locks:  # Windows removes no open file
                self._release()
            for name in ours:
                name.unlink()
        self._release()

    def _take(self) -> bool:
        """Makes the file and holds it; False where it vanished meanwhile."""
        self._held = os.open(self.temporary, _FLAGS, 0o666)
        try:
            locks = _hold(self._held)
        except WriteInProgress:
            self._release()
            raise
        if not locks:
            self._release()
            with suppress(OSError):
                self.temporary.unlink()
            self.temporary = self._name_of_its_own()
            self._held = os.open(self.temporary, _FLAGS | os.O_EXCL, 0o666)
        elif _is_at(self._held, self.temporary):  # its maker did not just publish or discard it
            os.ftruncate(self._held, 0)
        else:
            self._release()
        return self._held >= 0

    def _name_of_its_own(self) -> Path:
        return self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}.part")

    def _release(self) -> None:
        if self._held >= 0:
            file, self._held = self._held, -1
            os.close(file)


def write_atomically(path: Path, data: bytes) -> None:
    """Writes a small file whole, in place of what is there.

    Raises:
        WriteInProgress: another run writes it.
        OSError: the folder does not take it.
    """
    part = PartFile(path)
    try:
        part.open()
        with os.fdopen(part.descriptor(), "wb") as file:
            file.write(data)
        part.sync()
        part.publish(overwrite=True)
    finally:
        part.discard()


def _hold(file: int) -> bool:
    """Locks the file; False where there are no locks.

    Raises:
        WriteInProgress: another holds it.
    """
    if fcntl is None:  # pragma: no cover - Windows
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise WriteInProgress("another run is making it") from None
    except OSError:
        return False
    return True


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.lstat())
    except FileNotFoundError:
        return False


def _rename_to_new(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without links: the second look may come too late
        if os.path.lexists(target):
            raise FileExistsError(target) from None
        source.replace(target)
    else:
        source.unlink()


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # not every system can
        file = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)
