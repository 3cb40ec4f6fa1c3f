"""A song is the same as long as its content is, however it was touched or moved."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bsmamba2 import AudioError
from bsmamba2.files.identity import Identity


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "song"
    path.write_bytes(b"content")
    return path


def swap(path: Path, content: bytes) -> None:
    other = path.with_name("other")
    other.write_bytes(content)
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.replace(path)


def rewrite(path: Path, content: bytes) -> None:
    known = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(known.st_atime_ns, known.st_mtime_ns))


@pytest.mark.parametrize("change", [swap, rewrite, Path.write_bytes])
@pytest.mark.parametrize("content", [b"CONTENT", b"contents", b""])
def test_another_content_is_a_change(
    path: Path, change: Callable[[Path, bytes], object], content: bytes
) -> None:
    identity = Identity.of(path)
    change(path, content)
    with pytest.raises(AudioError, match="changed while it was separated"):
        identity.require_unchanged()


@pytest.mark.parametrize("change", [swap, rewrite, Path.write_bytes])
def test_the_same_content_is_no_change(path: Path, change: Callable[[Path, bytes], object]) -> None:
    identity = Identity.of(path)
    change(path, b"content")
    identity.require_unchanged()


def test_a_removed_song_has_not_changed(path: Path) -> None:
    identity = Identity.of(path)
    path.unlink()
    identity.require_unchanged()


@pytest.mark.parametrize("name", ["none", "a\0b", "x" * 300])
def test_a_song_that_cannot_be_read_is_refused_in_one_sentence(tmp_path: Path, name: str) -> None:
    with pytest.raises(AudioError, match="cannot be opened"):
        Identity.of(tmp_path / name)


def test_without_a_sum_a_touched_file_counts_as_changed(tmp_path: Path) -> None:
    path = tmp_path / "song.wav"
    path.write_bytes(b"song")
    identity = Identity.of(path, hashed=False)
    identity.require_unchanged()
    assert identity.sha256 == ""
    os.utime(path, ns=(1, 1))
    with pytest.raises(AudioError, match="changed while it was separated"):
        identity.require_unchanged()
