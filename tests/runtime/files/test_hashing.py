"""The hash of a file is the hash of its bytes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from bsmamba2.files.hashing import file_sha256


@pytest.mark.parametrize("size", [0, 1, 1 << 20])
def test_a_file_has_the_hash_of_its_bytes(tmp_path: Path, size: int) -> None:
    content = bytes(k % 251 for k in range(size))
    (tmp_path / "file").write_bytes(content)
    assert file_sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        file_sha256(tmp_path / "missing")
