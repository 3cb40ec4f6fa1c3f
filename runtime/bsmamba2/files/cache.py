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

from bsmamba2.files.part_file import write_atomically

MAX_RECORD_BYTES = 16 << 20


def cache_folder() -> Path:
    """Returns ``BSMAMBA2_CACHE`` if it is set, otherwise the system's cache folder."""
    configured = os.environ.get("BSMAMBA2_CACHE")
    if configured:
        return Path(configured).expanduser().absolute()
    return platformdirs.user_cache_path("bsmamba2", appauthor=False)


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
