"""This user's cache folder: models that were fetched, and what was found out about them.

Everything in it can be lost, damaged or written by two processes at once: a record is whole or it
is nothing, and nothing is never an error.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import platformdirs

MAX_RECORD_BYTES = 16 << 20


def cache_folder() -> Path:
    """``BSMAMBA2_CACHE`` where it is set, else the system's folder for such things."""
    asked = os.environ.get("BSMAMBA2_CACHE")
    if asked:
        return Path(asked).expanduser().absolute()
    return platformdirs.user_cache_path("bsmamba2", appauthor=False)


def read_record(path: Path) -> dict[str, Any] | None:
    """What :func:`write_record` wrote there; None if it is not there or not as it was written."""
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
    """Keeps JSON values under this path, at once or not at all; False where it cannot be kept."""
    plain = dict(content)
    text = json.dumps({"sha256": _digest(plain), "content": plain}, allow_nan=False)
    return write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> bool:
    """Keeps a file under this path, at once or not at all; False where it cannot be kept."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError:
        return False
    return True


def _digest(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
