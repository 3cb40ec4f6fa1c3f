"""The user's cache folder: downloaded models, and results about models that are computed once.

Its files may be lost, damaged, or written by two processes at the same time. A record is returned
complete or not at all, and a missing record is never an error. A record that another user can have
written counts as missing, because some records decide what code may run.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from bsmamba2.errors import Error
from bsmamba2.files.part_file import write_atomically
from bsmamba2.files.regular_file import is_own, open_own, read_regular

MAX_RECORD_BYTES = 16 << 20


def cache_folder() -> Path:
    """Returns ``BSMAMBA2_CACHE`` if it is set, otherwise the system's cache folder.

    Raises:
        Error: this user has no home folder, and ``BSMAMBA2_CACHE`` is not set.
    """
    folder = os.environ.get("BSMAMBA2_CACHE")
    if not folder:
        # Imported here: a machine that only measures kernels need not have it.
        import platformdirs

        try:
            folder = platformdirs.user_cache_dir("bsmamba2", appauthor=False)
        except RuntimeError:  # newer versions raise where older ones leave the ~
            folder = "~/.cache/bsmamba2"
    return in_home(folder, "BSMAMBA2_CACHE").absolute()


def in_home(folder: str, variable: str) -> Path:
    """Replaces ``~`` by the user's home folder.

    Args:
        folder: a path that may start with ``~``.
        variable: the environment variable that chooses another folder.

    Raises:
        Error: this user has no home folder.
    """
    path = Path(os.path.expanduser(folder))  # noqa: PTH111 - does not raise
    if path.parts[:1] and path.parts[0].startswith("~"):
        raise Error(
            f"{folder} cannot be found, because this user has no home folder: set HOME, or "
            f"{variable} to a folder"
        )
    return path


def read_record(path: Path, *, shipped: bool = False) -> dict[str, Any] | None:
    """Returns what :func:`write_record` wrote; None if the file is missing or damaged.

    Args:
        path: of the record.
        shipped: whether it came with the package, which another user may have installed. Other
            records must be this user's own.
    """
    try:
        content = read_regular(path, MAX_RECORD_BYTES) if shipped else read_own(path)
        stored = json.loads(content)
        digest, content = stored["sha256"], stored["content"]
        if isinstance(content, dict) and digest == _digest(content):
            return content
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    return None


def read_own(path: Path, limit: int = MAX_RECORD_BYTES) -> bytes:
    """Returns the content of a file that no other user can have written.

    Raises:
        OSError: it cannot be read, has more than ``limit`` bytes, is a link or no file, or other
            users can write it or a folder of the cache above it.
    """
    if (folder := shared_folder(path)) is not None:
        raise PermissionError(errno.EPERM, "other users can write its folder", str(folder))
    with open_own(path) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"it has more than {limit:,} bytes", str(path))
    return content


def shared_folder(path: Path) -> Path | None:
    """Returns the first folder above a file of the cache that other users can write, or None."""
    for folder in path.parents:
        with suppress(OSError):
            if not is_own(folder.stat()):
                return folder
        if folder == cache_folder() or not folder.is_relative_to(cache_folder()):
            break
    return None


def write_record(path: Path, content: Mapping[str, Any]) -> bool:
    """Writes JSON values atomically, with their hash; returns False if the file cannot be written.

    The folder is created if it is missing. Only this user can write the file.
    """
    plain = dict(content)
    text = json.dumps({"sha256": _digest(plain), "content": plain}, allow_nan=False)
    return write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> bool:
    """Writes a file atomically; returns False if it cannot be written.

    The folder is created if it is missing. Only this user can write the file.
    """
    try:
        make_folder(path.parent)
        write_atomically(path, content, mode=0o644)
    except OSError:
        return False
    return True


def make_folder(folder: Path) -> None:
    """Creates a folder of the cache, which only this user can write.

    Raises:
        OSError: it cannot be created.
    """
    if folder.is_relative_to(cache_folder()):
        cache_folder().parent.mkdir(parents=True, exist_ok=True)
        cache_folder().mkdir(mode=0o755, exist_ok=True)
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)


def _digest(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
