"""Opens files whose names come from outside, and nothing that only looks like a file.

A pipe can be waited for without end, a device can be read without end, and both may stand where a
model, a song's record or a file of the cache is expected.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from io import BufferedReader

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_NO_LINKS = getattr(os, "O_NOFOLLOW", 0)


def open_regular(path: Path, *, follow_links: bool = True) -> BufferedReader:
    """Opens a file for reading, without ever waiting for it.

    Raises:
        OSError: it cannot be opened, or it is a folder, a pipe, a socket or a device.
    """
    require_regular(path.stat() if follow_links else path.lstat(), path)  # opening acts on devices
    file = os.open(path, _FLAGS | (0 if follow_links else _NO_LINKS))
    try:
        require_regular(os.fstat(file), path)
        return os.fdopen(file, "rb")
    except BaseException:
        os.close(file)
        raise


def open_own(path: Path) -> BufferedReader:
    """Opens a file that only this user, or the administrator, can have written.

    Raises:
        OSError: as for :func:`open_regular`; or it is a link, belongs to another user, or can be
            written by others.
    """
    file = open_regular(path, follow_links=False)
    if not is_own(os.fstat(file.fileno())):
        file.close()
        raise PermissionError(errno.EPERM, "other users can write it", str(path))
    return file


def read_regular(path: Path, limit: int, *, follow_links: bool = True) -> bytes:
    """Returns the content of a small file.

    Raises:
        OSError: as for :func:`open_regular`, or it has more than ``limit`` bytes.
    """
    with open_regular(path, follow_links=follow_links) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"it has more than {limit:,} bytes", str(path))
    return content


def require_regular(info: os.stat_result, path: Path) -> None:
    """Raises OSError unless this is a file with content of its own."""
    if stat.S_ISREG(info.st_mode):
        return
    kind = next((kind for holds, kind in _KINDS if holds(info.st_mode)), "a link")
    raise OSError(errno.EINVAL, f"it is {kind}, not a file", str(path))


def is_own(info: os.stat_result) -> bool:
    """Whether a file or folder belongs to this user, or the administrator, and only they write it.

    Systems without users (Windows) have no such rule.
    """
    if not hasattr(os, "geteuid"):  # pragma: no cover - Windows
        return True
    return info.st_uid in (0, os.geteuid()) and not info.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
