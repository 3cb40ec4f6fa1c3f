"""Local and shared folders, with the guarantees of an object store.

A file is written under a hidden name, synced, and then linked (which fails if the name is taken) or
renamed to its final name. A shared folder must support hard links, as NFS does.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from bsmamba2.errors import first_line, one_line
from bsmamba2.files.regular_file import read_regular
from bsmamba2_cluster.storage import (
    Changed,
    Entry,
    Missing,
    Storage,
    StorageError,
    UnsafeKey,
    require_safe,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

PAGE = 1000
ATTEMPTS = 8
PART = re.compile(r"\.[0-9a-f]{16}\.part")
"""The name of a file that is being written."""


class LocalStorage(Storage):
    """A folder.

    Raises:
        StorageError: the address names another machine.
    """

    def __init__(self, address: str) -> None:
        path = address
        if address.lower().startswith("file://"):
            path = unquote(address[len("file://") :])
            if not path.startswith("/"):
                raise StorageError(f"address must be file:///…, without a machine; got {address!r}")
        if "\0" in path or not path:
            raise StorageError(f"address must be a folder; got {address!r}")
        self._root = Path(os.path.abspath(path))  # noqa: PTH100 - links in it stay
        self.address = str(self._root)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.address,)

    def pages(
        self, prefix: str = "", refused: Callable[[str, StorageError], object] | None = None
    ) -> Iterator[list[Entry]]:
        page: list[Entry] = []
        top = self._path(prefix) if prefix else self._root
        for entry in self._walk(top, prefix, refused or (lambda *_: None)):
            page.append(entry)
            if len(page) == PAGE:
                yield page
                page = []
        if page:
            yield page

    def _walk(
        self, folder: Path, prefix: str, refused: Callable[[str, StorageError], object]
    ) -> Iterator[Entry]:
        try:
            with self._errors("cannot be listed", prefix):
                found = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except Missing:
            return
        for item in found:
            key = f"{prefix}/{item.name}".lstrip("/")
            try:
                require_safe(key)
                if item.is_dir(follow_symlinks=False):
                    yield from self._walk(folder / item.name, key, refused)
                elif item.is_file() and not PART.fullmatch(item.name):
                    yield _entry(key, item.stat())
            except UnsafeKey as error:
                refused(key, error)
            except FileNotFoundError:  # it was removed meanwhile
                continue
            except OSError as error:
                why = f"{one_line(item.path)} cannot be read ({first_line(error)})"
                refused(key, StorageError(f"{why}: check its permissions"))

    def head(self, key: str) -> Entry | None:
        with suppress(Missing), self._errors("cannot be read", key):
            found = self._path(key).stat()
            return _entry(key, found) if stat.S_ISREG(found.st_mode) else None
        return None

    def read(self, key: str, limit_bytes: int = 1 << 20) -> bytes | None:
        with suppress(Missing), self._errors("cannot be read", key):
            return read_regular(self._path(key), limit_bytes)
        return None

    def download(self, entry: Entry, path: Path) -> None:
        self._require_same(entry)
        with self._errors("cannot be read", entry.key):
            shutil.copyfile(self._path(entry.key), path)
        self._require_same(entry)

    def create(self, key: str, data: bytes) -> bool:
        def write(part: Path, target: Path) -> bool:
            part.write_bytes(data)
            _sync(part)
            try:
                os.link(part, target)
            except FileExistsError:
                return False
            return True

        return self._write(key, write) or self.read(key, max(1 << 20, len(data))) == data

    def replace(self, key: str, data: bytes) -> None:
        def write(part: Path, target: Path) -> bool:
            part.write_bytes(data)
            _sync(part)
            part.replace(target)
            return True

        self._write(key, write)

    def upload(self, path: Path, key: str) -> None:
        def write(part: Path, target: Path) -> bool:
            shutil.copyfile(path, part)
            _sync(part)
            part.replace(target)
            return True

        self._write(key, write)

    def copy(self, source: str, target: str) -> bool:
        def write(part: Path, path: Path) -> bool:
            if not self._path(source).exists():
                return False
            os.link(self._path(source), part)
            # A rename between two names of one file would do nothing.
            if not (path.exists() and path.samefile(part)):
                part.replace(path)
            return True

        return self._write(target, write)

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            path = self._path(key)
            with suppress(Missing), self._errors("cannot be removed", key):
                path.unlink()
            self._remove_empty(path.parent)

    def _remove_empty(self, folder: Path) -> None:
        """Removes folders without content, and old files that a killed process was writing."""
        while folder != self._root and folder.is_relative_to(self._root):
            with suppress(OSError):
                for part in list(islice(folder.iterdir(), 8)):
                    if PART.fullmatch(part.name) and _is_old(part):
                        part.unlink()
            try:
                folder.rmdir()
            except OSError:
                return
            folder = folder.parent

    def _path(self, key: str) -> Path:
        require_safe(key)
        return self._root / key

    def _write(self, key: str, write: Callable[[Path, Path], bool]) -> bool:
        """Calls ``write`` with a hidden path in the target's folder and the target."""
        target = self._path(key)
        part = target.with_name(f".{secrets.token_hex(8)}.part")
        with self._errors("cannot be written", key):
            for attempt in range(ATTEMPTS):
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    done = write(part, target)
                except FileNotFoundError:  # another process removed the folder, which was empty
                    if attempt == ATTEMPTS - 1:
                        raise
                else:
                    _sync(target.parent)
                    return done
                finally:
                    part.unlink(missing_ok=True)
        raise AssertionError

    def _require_same(self, entry: Entry) -> None:
        found = self.head(entry.key)
        if found is None or (found.size, found.version) != (entry.size, entry.version):
            raise Changed(
                f"{self.address_of(entry.key)} was replaced or removed after it was listed: run "
                "again"
            )

    @contextmanager
    def _errors(self, what: str, key: str = "") -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, NotADirectoryError):
            raise Missing(
                f"{one_line(self.address_of(key) if key else self.address)} {what}: it does not "
                "exist"
            ) from None
        except OSError as error:
            where = one_line(self.address_of(key) if key else self.address)
            raise StorageError(
                f"{where} {what} ({first_line(error)}): check its name and permissions, and the "
                "space on its disk"
            ) from None


def _entry(key: str, found: os.stat_result) -> Entry:
    version = f"{found.st_mtime_ns:x}-{found.st_ino:x}-{found.st_size:x}"
    return Entry(key, found.st_size, version, datetime.fromtimestamp(found.st_mtime, UTC))


def _is_old(path: Path) -> bool:
    return datetime.now(UTC).timestamp() - path.lstat().st_mtime > 3600


def _sync(path: Path) -> None:
    with suppress(OSError):  # some file systems cannot
        file = os.open(path, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)
