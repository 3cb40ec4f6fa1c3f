"""Whether a song is still the one that it was: its place on the disk, its times and its content."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bsmamba2.errors import AudioError, first_line
from bsmamba2.files.hashing import file_sha256

if TYPE_CHECKING:
    import os
    from pathlib import Path


@dataclass(frozen=True)
class Identity:
    """A song at one moment."""

    path: Path
    bytes: int
    modified_ns: int
    sha256: str
    """Empty if it was not computed."""
    place: tuple[int, int, int]
    """Device, inode, and the time of the last change, which programs cannot set back."""

    @classmethod
    def of(cls, path: Path, hashed: bool = True) -> Identity:
        """Reads a song.

        Args:
            path: the file.
            hashed: whether to compute its SHA-256, which reads all of it.

        Raises:
            AudioError: it cannot be read.
        """
        try:
            found = path.stat()
            if not (hashed and path.is_file()):  # a FIFO would wait for a writer
                return cls(path, found.st_size, found.st_mtime_ns, "", _place(found))
            return cls(path, found.st_size, found.st_mtime_ns, file_sha256(path), _place(found))
        except (OSError, ValueError) as error:
            raise AudioError(
                f"{path} cannot be opened ({first_line(error)}): check its name and permissions"
            ) from None

    def require_unchanged(self) -> None:
        """Requires the song to be the same or to have the same content, unless it was removed.

        The content is read only if the file was touched, moved or written. Without a SHA-256, a
        file that was touched counts as changed.

        Raises:
            AudioError: it changed, or cannot be read.
        """
        try:
            found = self.path.stat()
            same = found.st_size == self.bytes and (
                (found.st_mtime_ns, _place(found)) == (self.modified_ns, self.place)
                or (self.sha256 and file_sha256(self.path) == self.sha256)
            )
        except FileNotFoundError:
            return
        except OSError as error:
            raise AudioError(
                f"{self.path} cannot be read ({first_line(error)}): check whether its disk is "
                "connected"
            ) from None
        if not same:
            raise AudioError(
                f"{self.path} changed while it was separated: its stems are not kept; separate it "
                "again"
            )


def _place(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_dev, found.st_ino, found.st_ctime_ns
