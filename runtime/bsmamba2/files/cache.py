"""The user's cache folder: downloaded models, and results about models that are computed once.

Its files may be lost, damaged, or written by two processes at the same time. A record is returned
complete or not at all, and a missing record is never an error.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import platformdirs

from bsmamba2.errors import Error
from bsmamba2.files.part_file import write_atomically

MAX_RECORD_BYTES = 16 << 20


def cache_folder() -> Path:
    """Returns ``BSMAMBA2_CACHE`` if it is set, otherwise the system's cache folder.

    Raises:
        Error: this user has no home folder, and ``BSMAMBA2_CACHE`` is not set.
    """
    folder = os.environ.get("BSMAMBA2_CACHE")
    if not folder:
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


def read_record(path: Path) -> dict[str, Any] | None:
    """Returns what :func:`write_record` wrote; None if the file is missing or damaged."""
    try:
        with path.open("rb") as file:
            stored = json.loads(file.read(MAX_RECORD_BYTES))
        digest, content = stored["sha256"], stored["content"]
        if isinstance(content, dict) and digest == _digest(content):
            return content
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    return None


def write_record(path: Path, content: Mapping[str, Any]) -> bool:
    """Writes JSON values atomically, with their hash; returns False if the file cannot be written.

    The folder is created if it is missing.
    """
    plain = dict(content)
    text = json.dumps({"sha256": _digest(plain), "content": plain}, allow_nan=False)
    return write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> bool:
    """Writes a file atomically; returns False if it cannot be written.

    The folder is created if it is missing.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    except OSError:
        return False
    return True


def _digest(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
