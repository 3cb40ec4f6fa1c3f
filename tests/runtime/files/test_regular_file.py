"""Only files are opened, at once; pipes, devices, sockets and others' files are errors."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from bsmamba2.files.regular_file import open_own, open_regular, read_regular

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has none of these")


def special(folder: Path) -> dict[str, Path]:
    """Creates everything that may stand where a file is expected."""
    places = {kind: folder / kind for kind in ("a folder", "a named pipe", "a socket", "a device")}
    places["a folder"].mkdir()
    os.mkfifo(places["a named pipe"])
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(places["a socket"]))
    places["a device"].symlink_to("/dev/zero")
    return places


def test_what_is_not_a_file_is_refused_at_once_with_its_kind(tmp_path: Path) -> None:
    for kind, path in special(tmp_path).items():
        with pytest.raises(OSError, match=f"it is {kind}, not a file"):
            open_regular(path)


def test_a_link_is_followed_only_where_it_may_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "link", 7) == b"content"
    with pytest.raises(OSError, match="it is a link, not a file"):
        read_regular(tmp_path / "link", 7, follow_links=False)


def test_no_more_is_read_than_the_limit(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    with pytest.raises(OSError, match="it has more than 6 bytes"):
        read_regular(tmp_path / "file", 6)


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_can_write_is_not_ones_own(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    path.chmod(0o644)
    open_own(path).close()
    path.chmod(mode)
    with pytest.raises(PermissionError, match="other users can write it"):
        open_own(path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs two users")
def test_a_file_of_another_user_is_not_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    os.chown(path, 12345, 12345)
    with pytest.raises(PermissionError, match="other users can write it"):
        open_own(path)
