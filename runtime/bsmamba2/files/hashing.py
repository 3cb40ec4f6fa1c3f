"""Hashes of files."""

from __future__ import annotations

import hashlib
from pathlib import Path

from bsmamba2.files.regular_file import open_regular


def file_sha256(path: Path) -> str:
    """Returns the hexadecimal SHA-256 of a file, which is read in pieces.

    Raises:
        OSError: it cannot be read, or it is a pipe or a device, which may have no end.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
