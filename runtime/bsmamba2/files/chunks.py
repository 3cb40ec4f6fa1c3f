"""Finds the chunks of WAV, RF64, BW64, AIFF, W64 and CAF files, without reading their samples.

    RIFF size WAVE │ fmt  size … │ data size samples │ LIST size …

Songs are untrusted: at most :data:`MAX_CHUNKS` headers are read, and no size is believed beyond the
end of the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_CHUNKS = 4096
_NEAR = 1 << 12
_IN_DS64 = 0xFFFFFFFF


@dataclass(frozen=True)
class Chunk:
    """A chunk of a file."""

    id: bytes
    """Its four letters; for W64, the first four bytes of its GUID."""
    start: int
    """Where its content starts, in bytes from the start of the file."""
    size: int
    """The size of its content in bytes, as the header states it."""


@dataclass(frozen=True)
class Layout:
    """How a kind of file stores its chunks."""

    data: bytes
    """The chunk of the samples."""
    first: int
    """Bytes before the first chunk."""
    id_bytes: int = 4
    size_bytes: int = 4
    byteorder: Literal["little", "big"] = "little"
    counts_header: bool = False
    """Whether a chunk's size includes its header."""
    align: int = 2
    """Chunks start at multiples of this."""


LAYOUTS = {
    b"RIFF": Layout(b"data", 12),
    b"RIFX": Layout(b"data", 12, byteorder="big"),
    b"RF64": Layout(b"data", 12),
    b"BW64": Layout(b"data", 12),
    b"FORM": Layout(b"SSND", 12, byteorder="big"),
    b"riff": Layout(b"data", 40, id_bytes=16, size_bytes=8, counts_header=True, align=8),
    b"caff": Layout(b"data", 8, size_bytes=8, byteorder="big", align=1),
}
"""The layout of each kind of file, by its first four bytes."""


class ChunkFile:
    """The chunks of an open file.

    Args:
        file: open for reading; its position is changed.
        size: its length in bytes.

    Raises:
        ValueError: the file has no chunks that are known here.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        file.seek(0)
        self.kind = file.read(4)
        if self.kind not in LAYOUTS:
            raise ValueError("not a file of chunks")
        self.size = size
        self.layout = LAYOUTS[self.kind]
        self._file = file
        self.chunks = tuple(self._walk())

    def find(self, id: bytes) -> Chunk | None:
        """Returns the first chunk with these four letters."""
        return next((chunk for chunk in self.chunks if chunk.id == id), None)

    def read(self, chunk: Chunk, limit: int) -> bytes:
        """Returns the content of a chunk, at most ``limit`` bytes of it."""
        self._file.seek(chunk.start)
        return self._file.read(max(0, min(chunk.size, limit)))

    @property
    def samples(self) -> Chunk | None:
        """The chunk of the samples."""
        return self.find(self.layout.data)

    @property
    def states_no_size(self) -> bool:
        """Whether the size of the samples was never written, as in a file from a pipe.

        Programs leave 0, or a number next to 2^31 or 2^32, and then the samples end with the file.
        """
        samples = self.samples
        if samples is None:
            return False
        if self.layout.size_bytes == 8:
            return samples.size < 0
        if samples.size == 0:
            return not self._ends_with_chunks(samples)
        return any(abs(samples.size - top) <= _NEAR for top in (2**31, 2**32))

    def _ends_with_chunks(self, samples: Chunk) -> bool:
        """Whether chunks, not samples, fill the file after an empty chunk of samples."""
        after = self.chunks[self.chunks.index(samples) :]
        named = all(chunk.id.isascii() and chunk.id.decode().isprintable() for chunk in after)
        return named and 0 <= self.size - (after[-1].start + after[-1].size) < self.layout.align

    def _walk(self) -> Iterator[Chunk]:
        layout, at, size_of_samples = self.layout, self.layout.first, -1
        header_bytes = layout.id_bytes + layout.size_bytes
        for _ in range(MAX_CHUNKS):
            self._file.seek(at)
            header = self._file.read(header_bytes)
            if len(header) < header_bytes:
                return
            size = self._number(header[layout.id_bytes :], signed=layout.size_bytes == 8)
            size -= header_bytes if layout.counts_header and size >= 0 else 0
            id, start = header[:4], at + header_bytes
            if id == b"ds64":
                size_of_samples = self._number(self._file.read(16)[8:])
            if id == layout.data and size == _IN_DS64 and size_of_samples >= 0:
                size = size_of_samples
            yield Chunk(id, start, size)
            if size < 0 or start + size > self.size:
                return
            at = -(-(start + size) // layout.align) * layout.align

    def _number(self, data: bytes, signed: bool = False) -> int:
        return int.from_bytes(data, self.layout.byteorder, signed=signed)
