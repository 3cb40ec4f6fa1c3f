"""Downloads a file of known size and SHA-256: the one place that opens connections.

What has arrived stays beside the file under a temporary name, and the next try goes on from there;
the file has its name only when every byte is right. The size bounds what is ever written.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import filelock
import requests

from bsmamba2.errors import ModelError, printable
from bsmamba2.files.hashing import file_sha256

Arrived: TypeAlias = Callable[[int], None]
"""Called with the bytes that have arrived so far."""

TIMEOUT = 10.0, 30.0
"""Seconds to connect in, and between two pieces."""

TRIES = 5
"""In a row that bring nothing; one that brings bytes starts the count anew."""

PAUSE = 1.0
"""Seconds before the second try; each further one waits twice as long."""

REDIRECTS = 5
PIECE = 1 << 18


def download(url: str, path: Path, size: int, sha256: str, arrived: Arrived) -> None:
    """Fetches the file to ``path``, whose folder is made; one that is there and right stays.

    Args:
        url: http or https; redirects are followed.
        size: bytes, exactly.
        sha256: of the whole file, in lower-case hexadecimal.

    Raises:
        ModelError: the server does not give these bytes, or the disk does not take them.
    """
    with _told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path):
            if path.is_file() and path.stat().st_size == size and file_sha256(path) == sha256:
                arrived(size)
                return
            part = path.with_name(f".{path.name}.part")
            resumed = _bytes_of(part) > 0
            _fetch(url, part, size, arrived)
            right = file_sha256(part) == sha256
            if resumed and not right:
                # What lay there from before may be the fault: once more, from the start.
                part.unlink()
                _fetch(url, part, size, arrived)
                right = file_sha256(part) == sha256
            if not right:
                part.unlink()
                raise ModelError(
                    f"{url} is not the file that was published (its SHA-256 differs): it was "
                    "removed; try again, or from another network"
                )
            part.replace(path)


def _fetch(url: str, part: Path, size: int, arrived: Arrived) -> None:
    """Fetches what is missing of the part, in as many tries as bring it forward."""
    failures, furthest = 0, _bytes_of(part)
    while (have := _bytes_of(part)) != size:
        if have > size:
            part.unlink()
            furthest = 0
            continue
        _require_room(part.parent, size - have)
        try:
            _go_on(url, part, have, size, arrived)
            reason = "it ended early"
        except _PassingError as error:
            reason = str(error)
        failures = 0 if _bytes_of(part) > furthest else failures + 1
        furthest = max(furthest, _bytes_of(part))
        if failures == TRIES:
            raise ModelError(
                f"{url} cannot be downloaded ({printable(reason)}): {_bytes_of(part):,} of "
                f"{size:,} bytes have arrived and are kept; check the network and run it again"
            )
        if _bytes_of(part) != size:
            time.sleep(PAUSE * 2**failures / 2)
    arrived(size)


def _go_on(url: str, part: Path, have: int, size: int, arrived: Arrived) -> None:
    """One request for the bytes from ``have`` on; what comes is appended."""
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with _answered(url), requests.Session() as session:
        session.max_redirects = REDIRECTS
        with session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
            _require_bytes(answer, url)
            if not _goes_on(answer, have):  # the server sends the whole again
                have = 0
            _require_length(answer, url, size - have)
            with part.open("r+b" if have else "wb") as file:
                file.seek(have)
                file.truncate()
                for piece in answer.iter_content(PIECE):
                    have += len(piece)
                    if have > size:
                        file.truncate(0)
                        raise ModelError(
                            f"{url} is longer than the {size:,} bytes that were published: it was "
                            "removed; try again, or from another network"
                        )
                    file.write(piece)
                    arrived(have)
                file.flush()
                os.fsync(file.fileno())


def _require_bytes(answer: requests.Response, url: str) -> None:
    status = answer.status_code
    if status in (200, 206):
        return
    if status == 416 or status == 429 or status >= 500:
        raise _PassingError(f"the server answered {status}")
    raise ModelError(
        f"{url} cannot be downloaded: the server answered {status} {printable(answer.reason or '')}"
        "; see whether it has moved"
    )


def _goes_on(answer: requests.Response, have: int) -> bool:
    start = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    if answer.status_code == 206 and start != str(have):
        raise _PassingError("the server sent another part of the file")
    return answer.status_code == 206


def _require_length(answer: requests.Response, url: str, wanted: int) -> None:
    length = answer.headers.get("Content-Length", str(wanted))
    if length != str(wanted):
        page = answer.headers.get("Content-Type", "").startswith("text/html")
        what = "a web page" if page else f"{printable(length)} bytes"
        raise ModelError(
            f"{url} gives {what} where {wanted:,} bytes were expected: see whether it has moved, "
            "or whether this network asks for a login"
        )


class _PassingError(Exception):
    """A failure that another try may mend."""


@contextmanager
def _answered(url: str) -> Iterator[None]:
    """Sorts what requests raises into what may pass and what will not."""
    try:
        yield
    except (
        requests.ConnectionError,
        requests.Timeout,
        requests.exceptions.ChunkedEncodingError,
    ) as error:
        raise _PassingError(_reason(error)) from None
    except requests.RequestException as error:
        raise ModelError(f"{url} cannot be downloaded: {printable(str(error))}") from None


def _reason(error: requests.RequestException) -> str:
    if isinstance(error, requests.exceptions.SSLError):
        return f"the connection is not safe: {error}"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke"
    return "there is no connection, or it fell silent"


def _bytes_of(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _require_room(folder: Path, wanted: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < wanted:
        raise ModelError(
            f"{folder} has room for {free / 1e6:,.0f} MB, {wanted / 1e6:,.0f} MB are wanted: make "
            "room, or set BSMAMBA2_CACHE to another folder"
        )


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process at a time; the lock goes with the process that holds it."""
    try:
        with filelock.FileLock(path.with_name(f".{path.name}.lock"), timeout=0):
            yield
    except filelock.Timeout:
        raise ModelError(
            f"another process is downloading {path.name} just now: wait until it is done"
        ) from None


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ModelError(
            f"{path} cannot be written ({error.strerror or error}): set BSMAMBA2_CACHE to a folder "
            "that can"
        ) from None
