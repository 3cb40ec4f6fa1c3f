"""Files that get their final name only when they are complete, each written by one process.

    .song_vocals.flac.part  ── complete, on the disk ──▶  song_vocals.flac

The writing process holds a lock (flock) on the temporary file. The lock ends with the process,
even if it is killed. So a locked temporary file is being written, and a second run can report
that; an unlocked one is a leftover of a killed run, and the next run takes it over. Where locks are
not available (Windows, some network folders) every temporary file gets a unique name instead, and
the leftovers of killed runs remain.

:func:`write_atomically` writes a small file, :func:`replacing` is for writers that take a path, and
:class:`PartFile` gives control over each step.
"""

from __future__ import annotations

import os
import secrets
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows
    fcntl = None  # type: ignore[assignment]

from bsmamba2.files.naming import hidden_name
from bsmamba2.files.regular_file import require_regular

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WAIT_S = 10.0
"""How long :func:`write_atomically` waits for another writer of the same file."""

_POLL_S = 0.01
_FLAGS = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_FLAGS |= getattr(os, "O_NONBLOCK", 0)
_ASIDE = ".old"
"""The suffix of a temporary file that was set aside."""

_NEW = _FLAGS | os.O_CREAT | os.O_EXCL


class WriteInProgress(FileExistsError):  # noqa: N818 - a state of the file, not a fault
    """Another process or thread is writing a file of the same name."""


class PartFile:
    """A file that is being written for ``path``, under a temporary name in the same folder.

    Callers must always call :meth:`discard`, even after an error. Ctrl-C can arrive at any moment,
    even inside a system call, so the code that removes files checks the disk instead of relying on
    attributes of the object.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.temporary = self._before = path.with_name(hidden_name(path.name, ".part"))
        self._held = -1
        self._published = False

    def open(self, wait_s: float = 0.0) -> None:
        """Creates the file, empty.

        Args:
            wait_s: how long to wait for another writer.

        Raises:
            WriteInProgress: another process is writing it.
            OSError: the file cannot be created.
        """
        deadline = time.monotonic() + wait_s
        while True:
            try:
                if self._take():
                    return
            except WriteInProgress:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(_POLL_S)

    def set_aside(self) -> None:
        """Renames the temporary file, so that the file can be written again next to it.

        Raises:
            OSError: the file cannot be renamed.
        """
        self._before, self.temporary = self.temporary, self.temporary.with_suffix(_ASIDE)
        self._before.replace(self.temporary)

    def set_mode(self, mode: int) -> None:
        """Sets the permissions of the file.

        Raises:
            OSError: they cannot be set.
        """
        if hasattr(os, "fchmod"):
            os.fchmod(self._held, mode)
        else:  # pragma: no cover - Windows
            self.temporary.chmod(mode)

    def descriptor(self) -> int:
        """Returns a duplicate of the file's descriptor, for a writer that closes it."""
        return os.dup(self._held)

    def reopen(self) -> None:
        """Locks the current file instead if a writer replaced the original, as safetensors does.

        Raises:
            WriteInProgress: another process has taken the new file.
            OSError: it cannot be opened.
        """
        if not os.path.lexists(self.temporary) or _is_at(self._held, self.temporary):
            return
        replacement = os.open(self.temporary, _FLAGS)
        if hasattr(os, "fchmod"):
            os.fchmod(replacement, os.fstat(self._held).st_mode & 0o7777)
        self._release()
        self._held = replacement
        _hold(replacement)

    def sync(self) -> None:
        """Waits until the content is on the disk.

        Raises:
            OSError: the content cannot be written.
        """
        os.fsync(self._held)

    def publish(self, overwrite: bool) -> None:
        """Renames the file to its final name, atomically.

        Raises:
            FileExistsError: a file of that name exists and must not be replaced.
            OSError: the file cannot be renamed.
        """
        if fcntl is None:  # pragma: no cover - Windows cannot rename an open file
            self._release()
        if overwrite:
            self.temporary.replace(self.path)
        else:
            _rename_to_new(self.temporary, self.path)
        self._published = True
        _sync_folder(self.path.parent)

    def withdraw(self) -> None:
        """Removes the file under its final name, if it was published."""
        if self._published or (self._held >= 0 and _is_at(self._held, self.path)):
            self.path.unlink(missing_ok=True)

    def discard(self) -> None:
        """Removes the temporary file, unless it was published or another process is writing it."""
        with suppress(OSError):  # it does not exist or cannot be removed
            if self._held < 0:
                self._held = _open_existing(self.temporary)
            locks = _hold(self._held)
            names = {self.temporary, self._before}
            ours = [name for name in names if _is_at(self._held, name)]
            if not locks:  # Windows cannot remove an open file
                self._release()
            for name in ours:
                name.unlink()
        self._release()

    def _take(self) -> bool:
        """Creates and locks the file; returns False if it vanished in between."""
        is_new = True
        try:
            self._held = os.open(self.temporary, _NEW, 0o666)
        except FileExistsError:
            is_new = False
            if self.temporary.is_symlink():
                self.temporary.unlink()
                return False
            try:
                self._held = _open_existing(self.temporary)
            except FileNotFoundError:  # its writer has just published or removed it
                return False
        try:
            locks = _hold(self._held)
        except WriteInProgress:
            self._release()
            raise
        if not locks:
            self._release()
            with suppress(OSError):
                self.temporary.unlink()
            self.temporary = self._unique_name()
            self._held = os.open(self.temporary, _NEW, 0o666)
        elif not _is_at(self._held, self.temporary):  # its writer has published or removed it
            self._release()
        elif is_new or _is_leftover(self._held):
            os.ftruncate(self._held, 0)
            _remove_leftover(self.temporary.with_suffix(_ASIDE))
        else:  # the same file has another name, or belongs to another user
            self.temporary.unlink()
            self._release()
        return self._held >= 0

    def _unique_name(self) -> Path:
        return self.path.with_name(hidden_name(self.path.name, f".{secrets.token_hex(4)}.part"))

    def _release(self) -> None:
        if self._held >= 0:
            file, self._held = self._held, -1
            os.close(file)


@contextmanager
def replacing(path: Path, *, mode: int | None = None, wait_s: float = 0.0) -> Iterator[Path]:
    """Yields a temporary path to write to; on success it replaces ``path``, on error it is removed.

    Args:
        path: the final name; its folder exists.
        mode: permissions of the file from the moment it is created. Default: by the umask.
        wait_s: how long to wait for another writer.

    Raises:
        WriteInProgress: another process is writing it.
        OSError: the file cannot be written.
    """
    part = PartFile(path)
    try:
        part.open(wait_s)
        if mode is not None:
            part.set_mode(mode)
        try:
            yield part.temporary
        finally:
            part.reopen()
        part.sync()
        part.publish(overwrite=True)
    finally:
        part.discard()


def write_atomically(path: Path, data: bytes, *, mode: int | None = None) -> None:
    """Writes a small file, replacing an existing one; readers see the old or the new content.

    Raises:
        WriteInProgress: another process has been writing it for :data:`WAIT_S`.
        OSError: the file cannot be written.
    """
    part = PartFile(path)
    try:
        part.open(WAIT_S)
        if mode is not None:
            part.set_mode(mode)
        with os.fdopen(part.descriptor(), "wb") as file:
            file.write(data)
        part.sync()
        part.publish(overwrite=True)
    finally:
        part.discard()


def remove_leftovers(path: Path) -> None:
    """Removes the temporary files that a killed run left next to a complete file."""
    temporary = PartFile(path).temporary
    for name in (temporary, temporary.with_suffix(_ASIDE)):
        _remove_leftover(name)


def _remove_leftover(name: Path) -> None:
    """Removes a temporary file, unless a process is writing it or locks are not available."""
    with suppress(OSError):  # it does not exist, is no file, or is being written
        file = _open_existing(name)
        try:
            if _hold(file) and _is_at(file, name):
                name.unlink()
        finally:
            os.close(file)


def _open_existing(name: Path) -> int:
    """Opens a file that exists.

    Raises:
        OSError: there is none, or it is a link, a folder, a pipe, a socket or a device.
    """
    require_regular(name.lstat(), name)  # opening acts on devices
    file = os.open(name, _FLAGS)
    try:
        require_regular(os.fstat(file), name)
    except OSError:
        os.close(file)
        raise
    return file


def _is_leftover(file: int) -> bool:
    """Whether this user's killed run can have left the file: nothing else has its content."""
    info = os.fstat(file)
    return info.st_nlink <= 1 and (not hasattr(os, "geteuid") or info.st_uid == os.geteuid())


def _hold(file: int) -> bool:
    """Locks the file; returns False where locks are not available.

    Raises:
        WriteInProgress: another process holds the lock.
    """
    if fcntl is None:  # pragma: no cover - Windows
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise WriteInProgress("another run is writing it") from None
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
    except OSError:  # no hard links: another process may create the target after this check
        if os.path.lexists(target):
            raise FileExistsError(target) from None
        source.replace(target)
    else:
        source.unlink()


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # some systems cannot
        file = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)
