"""Reads a WAV as it arrives on standard input, in blocks.

A program that writes to a pipe cannot go back and state the length, so it leaves 0, or a number
next to 2^31 or 2^32, as the size of the samples; then they end with the input. If a size is stated,
less is an error.

The input is untrusted: at most :data:`MAX_HEADER_BYTES` are read before the samples.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import numpy as np

from bsmamba2.audio.array import require_finite
from bsmamba2.audio.channels import require_channels
from bsmamba2.audio.resample import require_rate
from bsmamba2.errors import AudioError, first_line
from bsmamba2.files.encoding import Encoding
from bsmamba2.files.excerpt import WHOLE, Excerpt
from bsmamba2.files.song_file import BLOCK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bsmamba2.audio.array import Exact

STDIN = Path("/dev/stdin")
"""The path that stands for standard input."""

MAX_HEADER_BYTES = 1 << 24
"""Enough for tags with a picture."""

_NEAR = 1 << 12
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_SUBTYPES = {
    (_PCM, 8): "PCM_U8",
    (_PCM, 16): "PCM_16",
    (_PCM, 24): "PCM_24",
    (_PCM, 32): "PCM_32",
    (_FLOAT, 32): "FLOAT",
    (_FLOAT, 64): "DOUBLE",
}
_OTHERS = {
    b"fLaC": "FLAC",
    b"OggS": "Ogg",
    b"FORM": "AIFF",
    b"ID3\x03": "MP3",
    b"ID3\x04": "MP3",
    b"\xff\xfb": "MP3",
    b"riff": "W64",
    b"caff": "CAF",
}
"""How streams of other kinds start."""


class _Format(NamedTuple):
    """The content of the chunk ``fmt``."""

    subtype: str
    channels: int
    sample_rate: int
    frame_bytes: int
    speaker_mask: int | None


class WavReader:
    """A WAV on a stream that can be read once; a context manager that leaves the stream open.

    Its properties are those of :class:`bsmamba2.files.song_file.SongFile`.

    Args:
        stream: starts with the header.
        excerpt: the part to read.

    Raises:
        AudioError: the stream is a terminal or no WAV, or has a sample format, a rate or a number
            of channels that is not supported.
    """

    path = STDIN

    def __init__(self, stream: BinaryIO, excerpt: Excerpt = WHOLE) -> None:
        if stream.isatty():
            raise AudioError("it is a terminal: pipe a WAV into it, or name a file")
        self._stream = stream
        self._excerpt = excerpt
        self._header_bytes = 0
        self._format, self._bytes = self._read_header()
        self.sample_rate = self._format.sample_rate
        """Hz."""
        self.channels = self._format.channels
        self.speaker_mask = self._format.speaker_mask
        self.encoding = Encoding("WAV", self._format.subtype, ".wav")
        require_channels(self.channels)
        require_rate(self.sample_rate)
        self.first, self._stop = excerpt.bounds(self.sample_rate)

        self._stated = (self._bytes or 0) // self._format.frame_bytes
        """Samples of the whole song, as the header states them; 0 if it states none."""

    @property
    def label(self) -> str:
        """What the names of the excerpt's files end with, by the length in the header."""
        return self._excerpt.label(self._stated / self.sample_rate or None)

    @property
    def samples(self) -> int:
        """The length that the header states; 0 if it states none."""
        stated = self._stated
        stop = stated if self._stop is None else min(self._stop, stated or self._stop)
        return max(0, stop - self.first)

    def blocks(self) -> Iterator[Exact]:
        """Yields the samples, (channels, n) in float64, full scale ±1.

        Raises:
            AudioError: the stream cannot be read, ends early or within a sample, has no samples, or
                has a sample that is not finite.
        """
        at = 0
        while at < self.first:
            count = len(self._read(min(BLOCK, self.first - at)))
            at += count
            if not count:
                raise AudioError(
                    f"start_s must be before the end of the song, {at / self.sample_rate:g} s; got "
                    f"{self._excerpt.start_s:g}"
                )
        while at != self._stop:
            block = self._read(BLOCK if self._stop is None else min(BLOCK, self._stop - at)).T
            if not block.shape[1]:
                break
            require_finite(block, self.sample_rate, at)
            at += block.shape[1]
            yield block
        if at == self.first:
            raise AudioError("it has no samples: check the program that writes it")

    def _read(self, count: int) -> Exact:
        """Returns the next (n, channels); fewer at the end."""
        size, wanted = self._format.frame_bytes, count * self._format.frame_bytes
        if self._bytes is not None:
            wanted = min(wanted, self._bytes)
        data = self._take(wanted)
        if self._bytes is not None:
            self._bytes -= len(data)
            if len(data) < wanted:
                missing_s = (self._bytes + len(data) % size) / size / self.sample_rate
                raise AudioError(
                    f"it ended {missing_s:.1f} s before the end that its header states: check the "
                    "program that writes it"
                )
        rest = len(data) % size
        if rest and data[-rest:] != b"\0":  # chunks are padded to an even length
            raise AudioError("it ended within a sample: check the program that writes it")
        return _decode(data[: len(data) - rest], self._format.subtype).reshape(-1, self.channels)

    def _read_header(self) -> tuple[_Format, int | None]:
        """Reads up to the samples; returns their format, and their bytes if these are stated."""
        start = self._take(12)
        if not start:
            raise AudioError("it is empty: pipe a WAV into it")
        if start[:4] not in (b"RIFF", b"RF64", b"BW64") or start[8:] != b"WAVE":
            kind = next((name for id, name in _OTHERS.items() if start.startswith(id)), None)
            raise AudioError(
                f"it must be a WAV; got {kind or 'something else'}: convert it on the way, e.g. "
                "with ffmpeg -i SONG -f wav -"
            )
        format, long_size = None, 0
        while True:
            header = self._take(8)
            id, size = header[:4], int.from_bytes(header[4:], "little")
            if len(header) < 8:
                raise AudioError("it ended before its samples: check the program that writes it")
            if id == b"data":
                break
            content = self._header(size)
            if id == b"ds64":
                long_size = int.from_bytes(content[8:16], "little")
            elif id == b"fmt ":
                format = _read_format(content)
        if format is None:
            raise AudioError("its header does not state the sample format: it is damaged")
        if size == 0xFFFFFFFF and 0 < long_size < 1 << 62:
            return format, long_size
        is_unknown = size == 0 or any(abs(size - top) <= _NEAR for top in (2**31, 2**32))
        return format, None if is_unknown else size

    def _header(self, size: int) -> bytes:
        """Returns the content of a chunk before the samples."""
        padded = size + size % 2
        self._header_bytes += padded + 8
        if self._header_bytes > MAX_HEADER_BYTES:
            raise AudioError(f"it has more than {MAX_HEADER_BYTES:,} bytes before its samples")
        return self._take(padded)[:size]

    def _take(self, count: int) -> bytes:
        try:
            return self._stream.read(count)
        except OSError as error:
            raise AudioError(f"it cannot be read ({first_line(error)})") from None

    def __enter__(self) -> WavReader:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def standard_input(excerpt: Excerpt = WHOLE) -> WavReader:
    """Opens the WAV on standard input.

    Raises:
        AudioError: see :class:`WavReader`.
    """
    return WavReader(sys.stdin.buffer, excerpt)


def _read_format(content: bytes) -> _Format:
    def number(start: int, size: int) -> int:
        return int.from_bytes(content[start : start + size], "little")

    tag, channels, sample_rate = number(0, 2), number(2, 2), number(4, 4)
    frame_bytes, bits = number(12, 2), number(14, 2)
    mask = None
    if tag == _EXTENSIBLE and len(content) >= 40:
        tag, mask = number(24, 2), number(20, 4)
    subtype = _SUBTYPES.get((tag, bits))
    if subtype is None or len(content) < 16:
        raise AudioError(
            f"its samples must be PCM of 8, 16, 24 or 32 bits, or float of 32 or 64; got format "
            f"{tag} with {bits} bits"
        )
    if channels == 0 or frame_bytes != channels * bits // 8:
        raise AudioError(
            f"its header states {frame_bytes} bytes for {channels} samples of {bits} bits: it is "
            "damaged"
        )
    return _Format(subtype, channels, sample_rate, frame_bytes, mask)


def _decode(data: bytes, subtype: str) -> Exact:
    if subtype in ("FLOAT", "DOUBLE"):
        return np.frombuffer(data, "<f4" if subtype == "FLOAT" else "<f8").astype(np.float64)
    if subtype == "PCM_U8":
        return (np.frombuffer(data, np.uint8) - 128.0) / 128
    if subtype == "PCM_24":
        words = np.zeros((len(data) // 3, 4), np.uint8)
        words[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        return words.view("<i4")[:, 0] / 2.0**31
    bits = 16 if subtype == "PCM_16" else 32
    return np.frombuffer(data, f"<i{bits // 8}") / 2.0 ** (bits - 1)
