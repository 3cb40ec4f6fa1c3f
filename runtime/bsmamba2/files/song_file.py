"""Reads songs in blocks, so that memory does not grow with their length."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import soundfile

from bsmamba2.audio.array import require_finite
from bsmamba2.audio.channels import require_channels
from bsmamba2.audio.resample import require_rate
from bsmamba2.errors import AudioError, first_line
from bsmamba2.files.av_file import SUFFIXES, AvFile
from bsmamba2.files.encoding import Encoding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bsmamba2.audio.array import Exact

BLOCK = 1 << 16
"""Samples to read or copy per call."""


class SongFile:
    """A song on disk that can be read once, in blocks; a context manager.

    Raises:
        AudioError: the file is missing, unreadable or empty, or has an unsupported rate or number
            of channels.
        MissingExtra: only FFmpeg can read it, and PyAV is not installed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        with audio_errors(f"{self.path} cannot be opened", "check its name"):
            mode = self.path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise AudioError(f"{self.path} is a folder: name the songs in it, e.g. {self.path}/*")
        if not stat.S_ISREG(mode):
            raise AudioError(f"{self.path} is not a regular file: copy the song to a file first")
        if self.path.stat().st_size == 0:
            raise AudioError(f"{self.path} is an empty file: get a new copy")
        self._file = self._open()
        try:
            with self._naming_the_song():
                require_channels(self.channels)
                require_rate(self.sample_rate)
        except AudioError:
            self._file.close()
            raise

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return int(self._file.samplerate)

    @property
    def channels(self) -> int:
        return int(self._file.channels)

    @property
    def samples(self) -> int:
        """The length according to the header; the file may contain more or fewer samples."""
        return int(self._file.frames)

    @property
    def encoding(self) -> Encoding:
        return Encoding(self._file.format, self._file.subtype, self.path.suffix)

    def blocks(self) -> Iterator[Exact]:
        """Yields the samples, (channels, n) in float64, full scale ±1.

        Raises:
            AudioError: the file cannot be read to its end, was truncated while it was read, has
                no samples, or has a sample that is not finite.
        """
        start, size = 0, self.path.stat().st_size
        while True:
            with audio_errors(
                f"{self.path} cannot be read to the end", "it is damaged; get a new copy"
            ):
                frames = self._file.read(BLOCK, dtype="float64", always_2d=True)
            if len(frames) == 0:
                break
            with self._naming_the_song():
                require_finite(frames.T, self.sample_rate, start)
            start += len(frames)
            yield frames.T
        # If a file is truncated while it is read, libsndfile only reports the end of the song.
        if self._is_shorter_than(size):
            raise AudioError(
                f"{self.path} was truncated while it was read, at "
                f"{start / self.sample_rate:.1f} s: get a new copy"
            )
        if start == 0:
            raise AudioError(f"{self.path} has no samples: choose a song that is not empty")

    def _is_shorter_than(self, size: int) -> bool:
        """Whether the file became shorter; a removed file can still be read to its end."""
        try:
            return self.path.stat().st_size < size
        except OSError:
            return False

    def __enter__(self) -> SongFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _open(self) -> soundfile.SoundFile | AvFile:
        try:
            return soundfile.SoundFile(self.path)
        # TypeError: libsndfile expects raw samples for a name in .raw, and needs their format.
        except (soundfile.LibsndfileError, OSError, TypeError) as error:
            if self.path.suffix.lower() in SUFFIXES:
                return AvFile(self.path)
            raise AudioError(
                f"{self.path} is not audio that libsndfile reads ({first_line(error)}): convert "
                "it to WAV or FLAC first"
            ) from None

    @contextmanager
    def _naming_the_song(self) -> Iterator[None]:
        """Adds the song's path in front of messages about its audio."""
        try:
            yield
        except AudioError as error:
            raise AudioError(f"{self.path}: {error}") from None


@contextmanager
def audio_errors(what: str, fix: str) -> Iterator[None]:
    """Turns errors of libsndfile and the operating system into an AudioError.

    Args:
        what: what failed, e.g. ``song.wav cannot be opened``.
        fix: how to fix it.
    """
    try:
        yield
    except (soundfile.LibsndfileError, OSError) as error:
        raise AudioError(f"{what} ({first_line(error)}): {fix}") from None
