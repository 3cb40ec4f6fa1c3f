"""The downloaded files of published models, in the user's cache.

A file whose SHA-256 nobody publishes is pinned: the SHA-256 of the first download is kept in a
small file next to it, and from then on only a file with that SHA-256 is accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bsmamba2.errors import ModelError
from bsmamba2.files.cache import cache_folder, read_record, write_record
from bsmamba2.files.hashing import file_sha256
from bsmamba2.models.catalogue import Published, PublishedFile, Source


@dataclass(frozen=True)
class CachedFile:
    """A file of a model from one of its sources, downloaded or not."""

    model: Published
    file: PublishedFile
    source: Source

    @property
    def path(self) -> Path:
        return cache_folder() / "models" / self.model.file_name(self.file, self.source)

    @property
    def pin(self) -> Path:
        """The path of the file that keeps the SHA-256 of the first download."""
        return self.path.with_name(f"{self.path.name}.pin.json")

    @property
    def sha256(self) -> str | None:
        """The SHA-256 that the file must have; None before the first download of some."""
        if self.source.sha256 is not None:
            return self.source.sha256
        pinned = (read_record(self.pin) or {}).get("sha256")
        return pinned if isinstance(pinned, str) else None

    @property
    def is_fetched(self) -> bool:
        """Whether the file is here; its content is verified when it is read."""
        try:
            size = self.path.stat().st_size
        except OSError:  # missing or unreadable
            return False
        return size == (self.source.size or size) and self.sha256 is not None

    def fetch(self, received: Callable[[int], None] = lambda _: None) -> Path:
        """Downloads and verifies the file, and pins it if its SHA-256 is not published.

        Raises:
            ModelError: as for :func:`bsmamba2.models.download.download`, or the pin cannot be
                written.
        """
        # Imported here, because nothing else needs the network.
        from bsmamba2.models.download import OtherContentError, download

        expected, size = self.sha256, self.source.size
        if size is None and self.is_fetched and file_sha256(self.path) == expected:
            received(self.path.stat().st_size)
            return self.path
        try:
            download(self.source.url, self.path, size, expected, received)
        except OtherContentError:
            if self.source.sha256 is not None:
                raise
            raise ModelError(
                f"{self.source.url} is not the file of the first download (its SHA-256 differs, "
                f"and none is published): it was removed; if you trust it, delete {self.pin} and "
                "run this again"
            ) from None
        if expected is None:
            content = {"sha256": file_sha256(self.path), "url": self.source.url}
            if not write_record(self.pin, content):
                raise ModelError(f"{self.pin} cannot be written: make its folder writable")
        return self.path


def cached_files(model: Published) -> Iterator[CachedFile]:
    """Yields every file of a model from every source, in the order of the catalogue."""
    for file in model.files:
        for source in file.sources:
            yield CachedFile(model, file, source)


def find_cached(model: Published) -> tuple[CachedFile, ...]:
    """Returns one downloaded file for each file of the model; empty unless all are here."""
    here = []
    for file in model.files:
        found = (CachedFile(model, file, source) for source in file.sources)
        first = next((cached for cached in found if cached.is_fetched), None)
        if first is None:
            return ()
        here.append(first)
    return tuple(here)


def choose_sources(model: Published, mirror: int = 0) -> tuple[CachedFile, ...]:
    """Returns the files of a model, from the publisher (0) or a mirror (1 and up).

    Raises:
        ModelError: there is no such mirror.
    """
    most = min(len(file.sources) for file in model.files) - 1
    if not 0 <= mirror <= most:
        allowed = f"0 to {most}" if most else "left out"
        raise ModelError(f"mirror must be {allowed} for {model.name}; got {mirror}")
    return tuple(CachedFile(model, file, file.sources[mirror]) for file in model.files)
