"""Standard output and error that can always be printed to, so that printing never stops the work.

A name that the terminal's encoding lacks is printed as the bytes that it has on the disk. What
cannot be printed because a pipe was closed or a disk is full is dropped; at the end,
:func:`printing_failure` says so.
"""

from __future__ import annotations

import codecs
import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

ERRORS = "bsmamba2.bytes-of-names"


def _bytes_of_names(error: UnicodeError) -> tuple[str | bytes, int]:
    """Encodes what an encoding lacks as the file system does, or as an escape sequence."""
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end]
    try:
        return os.fsencode(text), error.end
    except UnicodeEncodeError:
        return text.encode("ascii", "backslashreplace"), error.end


codecs.register_error(ERRORS, _bytes_of_names)


class LenientStream:
    """A text stream whose writes never fail; the first failure is kept in ``failure``."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failure: OSError | None = None
        with suppress(AttributeError, TypeError, ValueError, LookupError):
            is_ascii = codecs.lookup(stream.encoding).name == "ascii"
            encoding = sys.getfilesystemencoding() if is_ascii else None  # click replaces ASCII
            stream.reconfigure(encoding=encoding, errors=ERRORS)  # type: ignore[attr-defined]

    def write(self, text: str) -> int:
        if self.failure is None:
            try:
                self._stream.write(text)
            except OSError as error:
                self._fail(error)
        return len(text)

    def flush(self) -> None:
        if self.failure is None:
            try:
                self._stream.flush()
            except OSError as error:
                self._fail(error)

    def _fail(self, error: OSError) -> None:
        """Keeps the failure, and sends what the stream still holds to nowhere."""
        self.failure = error
        with suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def lenient_streams() -> Iterator[None]:
    """Replaces ``sys.stdout`` and ``sys.stderr`` by streams whose writes never fail."""
    open_closed_descriptors()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (LenientStream(stream) for stream in before)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        sys.stdout, sys.stderr = before


def open_closed_descriptors() -> None:
    """Opens standard input, output and error on the null device where they are closed.

    Otherwise the next file that is opened would get their number, and libraries that print to
    standard error would write into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:  # pragma: no cover - the lowest free number is given
                os.dup2(opened, number)
                os.close(opened)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115


def printing_failure() -> str:
    """Returns why standard output was not printed completely; empty if it was, or on a pipe."""
    failure = getattr(sys.stdout, "failure", None)
    if failure is None or failure.errno == errno.EPIPE:  # the reader wanted no more
        return ""
    return str(failure.strerror or failure)
