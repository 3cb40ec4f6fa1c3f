"""Downloads a file and verifies it; no other module of the runtime uses the network.

The bytes received so far are kept under a temporary name next to the file, and the next attempt
resumes from there. The file gets its final name only if its SHA-256 is right. No more bytes than
its size are written; without a known size, no more than the server announces.
"""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import filelock
import requests

from bsmamba2.errors import ModelError, printable
from bsmamba2.files.cache import make_folder
from bsmamba2.files.hashing import file_sha256
from bsmamba2.files.regular_file import require_regular
from bsmamba2.models.catalogue import MAX_MODEL_BYTES

Received: TypeAlias = Callable[[int], None]
"""Called with the number of bytes received so far."""

TIMEOUT = 10.0, 30.0
"""Timeouts in seconds: to connect, and between two pieces."""

TRIES = 5
"""Consecutive attempts without a new byte before the download fails."""

PAUSE = 1.0
"""Seconds before the second attempt; the wait doubles with each further one."""

_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)

REDIRECTS = 5
PIECE = 1 << 18


class OtherContentError(ModelError):
    """The downloaded file has another SHA-256 than expected."""


def download(
    url: str, path: Path, size: int | None, sha256: str | None, received: Received
) -> None:
    """Downloads the file to ``path``, unless it is there already, and creates its folder.

    Args:
        url: http or https; redirects are followed.
        size: exact size in bytes. None: what the server announces.
        sha256: of the whole file, in lower-case hexadecimal. None: any.
        received: called with the number of bytes received so far.

    Raises:
        ModelError: the server does not send these bytes, or the disk does not accept them.
    """
    if size is None:
        size = _announced_size(url)
    with _os_errors(path):
        make_folder(path.parent)
        with _lock(path):
            if path.is_file() and path.stat().st_size == size and _is_right(path, sha256):
                received(size)
                return
            part = path.with_name(f".{path.name}.part")
            _require_own(part)
            resumed = _bytes_of(part) > 0
            _fetch(url, part, size, received)
            right = _is_right(part, sha256)
            if resumed and not right:
                # The bytes from an earlier attempt may be wrong: start again once.
                part.unlink()
                _fetch(url, part, size, received)
                right = _is_right(part, sha256)
            if not right:
                part.unlink()
                raise OtherContentError(
                    f"{url} is not the published file (its SHA-256 differs): it was removed; try "
                    "again, or from another network"
                )
            part.replace(path)


def _is_right(path: Path, sha256: str | None) -> bool:
    return sha256 is None or file_sha256(path) == sha256


def _announced_size(url: str) -> int:
    """Returns the length that the server states for a file.

    Raises:
        ModelError: it states none, or more than a model may have, or does not answer.
    """
    for attempt in range(TRIES):
        try:
            with _answered(url), requests.Session() as session:
                session.max_redirects = REDIRECTS
                headers = {"Accept-Encoding": "identity"}
                with session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
                    _require_bytes(answer, url)
                    length = answer.headers.get("Content-Length", "none")
        except _TransientError as error:
            reason = str(error)
            time.sleep(PAUSE * 2**attempt / 2)
            continue
        size = int(length) if length.isascii() and length.isdecimal() and len(length) < 20 else 0
        if not 0 < size <= MAX_MODEL_BYTES:
            raise ModelError(
                f"{url} must state its size, at most {MAX_MODEL_BYTES:,} bytes; got "
                f"{printable(length)}: state the file's bytes in the catalogue"
            )
        return size
    raise ModelError(f"{url} cannot be downloaded ({printable(reason)}): check the network")


def _fetch(url: str, part: Path, size: int, received: Received) -> None:
    """Downloads the rest of the partial file; retries as long as there is progress."""
    failures, furthest = 0, _bytes_of(part)
    while (have := _bytes_of(part)) != size:
        if have > size:
            part.unlink()
            furthest = 0
            continue
        _require_space(part.parent, size - have)
        try:
            _resume(url, part, have, size, received)
            reason = "it ended early"
        except _TransientError as error:
            reason = str(error)
        failures = 0 if _bytes_of(part) > furthest else failures + 1
        furthest = max(furthest, _bytes_of(part))
        if failures == TRIES:
            raise ModelError(
                f"{url} cannot be downloaded ({printable(reason)}): {_bytes_of(part):,} of "
                f"{size:,} bytes were received and are kept; check the network and run it again"
            )
        if _bytes_of(part) != size:
            time.sleep(PAUSE * 2**failures / 2)
    received(size)


def _resume(url: str, part: Path, have: int, size: int, received: Received) -> None:
    """Requests the bytes from ``have`` onwards, and appends them."""
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with _answered(url), requests.Session() as session:
        session.max_redirects = REDIRECTS
        with session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
            _require_bytes(answer, url)
            if not _is_resumed(answer, have):  # the server sends the file from its start
                have = 0
            _require_length(answer, url, size - have)
            with os.fdopen(os.open(part, _FLAGS, 0o666), "r+b") as file:
                file.seek(have)
                file.truncate()
                for piece in answer.iter_content(PIECE):
                    have += len(piece)
                    if have > size:
                        file.truncate(0)
                        raise ModelError(
                            f"{url} must have {size:,} bytes; got more: it was removed; try "
                            "again, or from another network"
                        )
                    file.write(piece)
                    received(have)
                file.flush()
                os.fsync(file.fileno())


def _require_bytes(answer: requests.Response, url: str) -> None:
    visited = [step.url for step in (*answer.history, answer)]
    if url.startswith("https:") and not all(step.startswith("https:") for step in visited):
        raise ModelError(
            f"{url} must be downloaded over https; got a redirect to {printable(visited[-1])}: "
            "check whether it has moved"
        )
    status = answer.status_code
    if status in (200, 206):
        return
    if status == 416 or status == 429 or status >= 500:
        raise _TransientError(f"the server answered {status}")
    raise ModelError(
        f"{url} cannot be downloaded: the server answered {status} {printable(answer.reason or '')}"
        ": check whether it has moved"
    )


def _is_resumed(answer: requests.Response, have: int) -> bool:
    start = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    if answer.status_code == 206 and start != str(have):
        raise _TransientError("the server sent another part of the file")
    return answer.status_code == 206


def _require_length(answer: requests.Response, url: str, expected: int) -> None:
    length = answer.headers.get("Content-Length", str(expected))
    if length != str(expected):
        page = answer.headers.get("Content-Type", "").startswith("text/html")
        what = "a web page" if page else f"{printable(length)} bytes"
        raise ModelError(
            f"{url} must have {expected:,} bytes; got {what}: check whether it has moved, or "
            "whether this network requires a login"
        )


class _TransientError(Exception):
    """A failure after which another attempt may succeed."""


@contextmanager
def _answered(url: str) -> Iterator[None]:
    """Turns errors of requests into a _TransientError, if a retry may help, or a ModelError."""
    try:
        yield
    except (
        requests.ConnectionError,
        requests.Timeout,
        requests.exceptions.ChunkedEncodingError,
    ) as error:
        raise _TransientError(_reason(error)) from None
    except requests.RequestException as error:
        raise ModelError(f"{url} cannot be downloaded: {printable(str(error))}") from None


def _reason(error: requests.RequestException) -> str:
    if isinstance(error, requests.exceptions.SSLError):
        return f"the connection is not safe: {error}"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke"
    return "there is no connection, or no data arrives"


def _require_own(name: Path) -> None:
    """Removes a link under the name, which must not be written through.

    Raises:
        OSError: it is a folder, a pipe, a socket or a device.
    """
    if not os.path.lexists(name):
        return
    info = name.lstat()
    if stat.S_ISLNK(info.st_mode) or (stat.S_ISREG(info.st_mode) and info.st_nlink > 1):
        name.unlink()
    else:
        require_regular(info, name)


def _bytes_of(part: Path) -> int:
    return part.lstat().st_size if os.path.lexists(part) else 0


def _require_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ModelError(
            f"{folder} has {free / 1e6:,.0f} MB free, and {needed / 1e6:,.0f} MB are needed: free "
            "some space, or set BSMAMBA2_CACHE to another folder"
        )


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Lets one process at a time download the file; the lock ends with the process."""
    lock = path.with_name(f".{path.name}.lock")
    _require_own(lock)
    try:
        with filelock.FileLock(lock, timeout=0):
            yield
    except filelock.Timeout:
        raise ModelError(
            f"another process is downloading {path.name}: wait until it is done"
        ) from None


@contextmanager
def _os_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ModelError(
            f"{path} cannot be written ({error.strerror or error}): set BSMAMBA2_CACHE to a "
            "writable folder"
        ) from None
