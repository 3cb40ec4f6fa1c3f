"""Writes one stem to standard output as a WAV, as it is separated.

The length is not known when the header is written, so it states the largest one, as other programs
do on a pipe. If the output is a file, the header is completed at the end.
"""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from bsmamba2.errors import AudioError, Cancelled, first_line, not_one_of
from bsmamba2.files.speakers import IMPLIED_MASKS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from bsmamba2.audio.array import Exact
    from bsmamba2.files.encoding import Clip, Encoding
    from bsmamba2.files.tags import Tags

STDOUT = Path("/dev/stdout")
"""The path that stands for standard output."""

SUBTYPES = ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")

_UNKNOWN = 0xFFFFFFFF
_GUID_END = bytes.fromhex("000000001000800000aa00389b71")
"""How the 16 bytes end that name a sample format, after its two bytes."""


class ReaderGone(Cancelled):
    """The program that reads standard output wants no more."""


class WavWriter:
    """A stem that is written to a stream; the part of :class:`StemFiles` that a song needs.

    Args:
        stream: open for writing; it is left open.
        row: the row of a block that is written.
        encoding: its sample format, one of :data:`SUBTYPES`.
        sample_rate: Hz.
        channels: number of channels of every block.
        clip: what to do with samples beyond full scale; in an integer format ``float`` is as
            ``error``, because the samples before are already gone.
        speaker_mask: the speakers of the channels, see :mod:`bsmamba2.files.speakers`.
    """

    def __init__(
        self,
        stream: BinaryIO,
        row: int,
        encoding: Encoding,
        sample_rate: int,
        channels: int,
        *,
        clip: Clip,
        speaker_mask: int | None = None,
    ) -> None:
        self._stream = stream
        self._row = row
        self._encoding = encoding
        self._clip = clip
        self._header = _header(encoding, sample_rate, channels, speaker_mask)
        self._start = _position(stream)
        self._bytes = 0

    def write(self, outputs: Exact) -> None:
        """Writes one row of (outputs, channels, n).

        Raises:
            AudioError: the stream cannot be written, or a sample exceeds full scale.
            ReaderGone: nobody reads the stream any more.
        """
        samples = outputs[self._row]
        if self._encoding.bits:
            samples = self._fit(samples)
        data = _encode(samples, self._encoding)
        self._put(data)
        self._bytes += len(data)

    def finish(self, tags: Tags | None = None) -> Mapping[int, tuple[Path, int]]:
        """Completes the header, if the stream is a file."""
        header, whole = self._header, len(self._header) + self._bytes
        if self._bytes % 2 and self._start is not None:  # on a pipe it would be a sample
            self._put(b"\0")
        if self._start is not None and whole < _UNKNOWN:
            with suppress(OSError):
                end = self._stream.tell()
                self._stream.seek(self._start + 4)
                self._stream.write((whole + self._bytes % 2 - 8).to_bytes(4, "little"))
                self._stream.seek(self._start + len(header) - 4)
                self._stream.write(self._bytes.to_bytes(4, "little"))
                self._stream.seek(end)
                self._stream.flush()
        return {}

    def publish(self) -> Mapping[int, Path]:
        """There is nothing to rename."""
        return {}

    def __enter__(self) -> WavWriter:
        self._put(self._header)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    def _fit(self, samples: Exact) -> Exact:
        low, high = -1.0, 1.0 - self._encoding.step
        if samples.min(initial=0) >= low and samples.max(initial=0) <= high:
            return samples
        if self._clip == "clip":
            return np.clip(samples, low, high)
        raise AudioError(
            f"the stem exceeds full scale, which {self._encoding.subtype} cannot hold: use "
            "clip='clip' or subtype='float'"
        )

    def _put(self, data: bytes) -> None:
        try:
            self._stream.write(data)
            self._stream.flush()
        except OSError as error:
            if error.errno in (errno.EPIPE, errno.ESHUTDOWN):
                _send_nowhere(self._stream)
                raise ReaderGone(
                    "standard output was closed by the program that reads it"
                ) from None
            raise AudioError(f"standard output cannot be written ({first_line(error)})") from None


def standard_output() -> BinaryIO:
    """Returns standard output, for a WAV.

    Raises:
        AudioError: it is a terminal.
    """
    if sys.stdout.isatty():
        raise AudioError(
            "standard output is a terminal, and audio would be printed on it: redirect it to a "
            "file, or pipe it into a program such as aplay"
        )
    return sys.stdout.buffer


def require_subtype(subtype: str) -> None:
    """Requires a sample format that can be written to standard output.

    Raises:
        AudioError: it cannot.
    """
    if subtype.upper() not in SUBTYPES:
        names = map(str.lower, SUBTYPES)
        raise AudioError(not_one_of("subtype for standard output", names, subtype))


def _header(encoding: Encoding, sample_rate: int, channels: int, speaker_mask: int | None) -> bytes:
    bits = 8 * encoding.sample_bytes
    tag = 1 if encoding.bits else 3
    is_usual = channels <= 2 and speaker_mask in (None, IMPLIED_MASKS[channels])

    def number(value: int, size: int = 2) -> bytes:
        return value.to_bytes(size, "little")

    frame_bytes = channels * bits // 8
    format = number(tag if is_usual else 0xFFFE) + number(channels) + number(sample_rate, 4)
    format += number(sample_rate * frame_bytes, 4) + number(frame_bytes) + number(bits)
    if not is_usual:
        format += number(22) + number(bits) + number(speaker_mask or 0, 4) + number(tag) + _GUID_END
    return (
        b"RIFF" + number(_UNKNOWN, 4) + b"WAVE"
        b"fmt " + number(len(format), 4) + format + b"data" + number(_UNKNOWN, 4)
    )


def _encode(samples: Exact, encoding: Encoding) -> bytes:
    frames = np.ascontiguousarray(samples.T)
    if encoding.bits is None:
        return frames.astype("<f8" if encoding.subtype == "DOUBLE" else "<f4").tobytes()
    if encoding.bits == 8:
        return (frames * 128 + 128).astype(np.uint8).tobytes()
    words = (frames * 2.0**31).astype("<i4")
    bytes_of_words = words.view(np.uint8).reshape(-1, 4)
    return bytes_of_words[:, 4 - encoding.sample_bytes :].tobytes()


def _position(stream: BinaryIO) -> int | None:
    """Returns where the stream is, if it is a file in which one can go back."""
    try:
        if _appends(stream) or not stream.seekable():
            return None
        return stream.tell()
    except (OSError, ValueError):
        return None


def _appends(stream: BinaryIO) -> bool:
    """Whether everything is written to the end of the file, as after ``>>`` in a shell."""
    try:
        import fcntl

        return bool(fcntl.fcntl(stream.fileno(), fcntl.F_GETFL) & os.O_APPEND)
    except (ImportError, OSError, ValueError):  # Windows, or no file
        return False


def _send_nowhere(stream: BinaryIO) -> None:
    """Sends what the stream still holds to nowhere, so that closing it raises no error."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
