"""Storage of songs and stems: object stores and local folders, with the same guarantees.

An object is visible complete or not at all, :meth:`Storage.create` succeeds for one of several
writers, and a key cannot leave its folder. Credentials are taken from the environment of each
machine (AWS_*, GOOGLE_*, AZURE_*) and appear in no address, message or record.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bsmamba2.errors import Error, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime
    from pathlib import Path

MAX_KEY_BYTES = 1024
"""The longest key that object stores accept, with the prefix."""


class StorageError(Error):
    """Storage that cannot be used, or an object that cannot be read or written."""


class UnsafeKey(StorageError):  # noqa: N818 - named after what the key is
    """A key that could leave its folder, or that not every store can hold."""


class Missing(StorageError):  # noqa: N818 - a state of the object, not a fault
    """An object, or the bucket, that does not exist."""


class Changed(StorageError):  # noqa: N818 - a state of the object, not a fault
    """An object that was replaced or removed since it was listed."""


@dataclass(frozen=True)
class Entry:
    """An object of a listing."""

    key: str
    """Relative to the storage's address, with ``/`` between folders."""
    size: int
    """Bytes."""
    version: str
    """Changes when the object is replaced: its ETag; of a local file, its time and inode."""
    modified: datetime


class Storage(ABC):
    """A bucket's prefix, or a folder. It can be pickled, and threads may share it.

    Every method raises :class:`StorageError` if the store cannot be reached or refuses.
    """

    address: str
    """As given, without a slash at the end. It holds no credentials."""

    @abstractmethod
    def pages(
        self, prefix: str = "", refused: Callable[[str, StorageError], object] | None = None
    ) -> Iterator[list[Entry]]:
        """Yields all objects below a folder, in pages of bounded size.

        Args:
            prefix: the folder; ``""`` for all.
            refused: receives each name that has no safe key, and why. Default: it is left out.
        """

    @abstractmethod
    def head(self, key: str) -> Entry | None:
        """Returns an object's entry; None if there is none."""

    @abstractmethod
    def read(self, key: str, limit_bytes: int = 1 << 20) -> bytes | None:
        """Returns a small object; None if there is none."""

    @abstractmethod
    def download(self, entry: Entry, path: Path) -> None:
        """Writes an object to a new file, in parts.

        Raises:
            Changed: it is no longer the object of the entry.
        """

    @abstractmethod
    def create(self, key: str, data: bytes) -> bool:
        """Writes a small object unless the key is taken; returns whether this call wrote it.

        The data must be unique to the caller: if an answer is lost, what is stored is compared
        with it.
        """

    @abstractmethod
    def replace(self, key: str, data: bytes) -> None:
        """Writes a small object, replacing an existing one."""

    @abstractmethod
    def upload(self, path: Path, key: str) -> None:
        """Writes a file to an object in parts; the object is visible after the last part."""

    @abstractmethod
    def copy(self, source: str, target: str) -> bool:
        """Copies an object inside the store, replacing the target; returns False if it is gone."""

    @abstractmethod
    def delete(self, keys: Iterable[str]) -> None:
        """Removes objects; those that do not exist are ignored."""

    def address_of(self, key: str) -> str:
        """Returns the address of a key."""
        return f"{self.address}/{key}"


def require_safe(key: str, prefix: str = "") -> None:
    """Requires a key that stays in its folder and that every store and file system can hold.

    Args:
        key: relative to a prefix.
        prefix: counts towards the length.

    Raises:
        UnsafeKey: a part is empty, ``.`` or ``..``, or has a control character; the key is not
            text, or is longer than :data:`MAX_KEY_BYTES`.
    """
    why = ""
    if any(part in ("", ".", "..") for part in key.split("/")):
        why = "a part of it is empty, . or .."
    elif any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in key):
        why = "it has a control character"
    elif any("\ud800" <= letter <= "\udfff" for letter in key):
        why = "it is not UTF-8"
    elif len(f"{prefix}/{key}".strip("/").encode()) > MAX_KEY_BYTES:
        why = f"it is longer than {MAX_KEY_BYTES:,} bytes"
    if why:
        raise UnsafeKey(f"the key {printable(key)!r} cannot be used ({why}): rename it")
