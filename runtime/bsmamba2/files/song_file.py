"""Songs read in blocks, so that memory does not grow with their length."""

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
from bsmamba2.errors import AudioError
from bsmamba2.files.av_file import SUFFIXES, AvFile
from bsmamba2.files.encoding import Encoding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bsmamba2.audio.array import Exact

BLOCK = 1 << 16
"""Samples read or copied at once."""


class SongFile:
    """A song on disk, to be read once in blocks; a context manager.

    Raises:
        AudioError: the file is missing, unreadable, empty, or of no song's rate or channels.
        MissingExtra: only FFmpeg reads it, and PyAV is not installed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        with audio_errors(f"{self.path} cannot be opened", "check its name"):
            mode = self.path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise AudioError(f"{self.path} is a folder: give the songs in it, e.g. {self.path}/*")
        if not stat.S_ISREG(mode):
            raise AudioError(f"{self.path} is no file: write the song to one first")
        if self.path.stat().st_size == 0:
            raise AudioError(f"{self.path} is an empty file: get it again")
        self._file = self._open()
        try:
            with self._named():
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
        """The length that the header states; what can be read decides."""
        return int(self._file.frames)

    @property
    def encoding(self) -> Encoding:
        return Encoding(self._file.format, self._file.subtype, self.path.suffix)

    def blocks(self) -> Iterator[Exact]:
        """The samples, (channels, n) in float64, full scale ±1.

        Raises:
            AudioError: the file cannot be read on, became shorter meanwhile, a sample is not
                finite, or there is none.
        """
        start, size = 0, self.path.stat().st_size
        while True:
            with audio_errors(f"{self.path} cannot be read on", "it is damaged, get it again"):
                frames = self._file.read(BLOCK, dtype="float64", always_2d=True)
            if len(frames) == 0:
                break
            with self._named():
                require_finite(frames.T, self.sample_rate, start)
            start += len(frames)
            yield frames.T
        # libsndfile takes what is cut off under its hands for the end of the song.
        if self._is_shorter_than(size):
            raise AudioError(
                f"{self.path} became shorter while it was read, and was left at "
                f"{start / self.sample_rate:.1f} s: get it again"
            )
        if start == 0:
            raise AudioError(f"{self.path} has no samples: give a song that is not empty")

    def _is_shorter_than(self, size: int) -> bool:
        """Whether the file lost bytes; one that was removed can be read to its end."""
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
        # libsndfile takes a name that ends in .raw for headerless samples, and asks for their type.
        except (soundfile.LibsndfileError, OSError, TypeError) as error:
            if self.path.suffix.lower() in SUFFIXES:
                return AvFile(self.path)
            raise AudioError(
                f"{self.path} is not audio that libsndfile reads ({_reason(error)}): convert it to "
                "WAV or FLAC first"
            ) from None

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Puts the song's name before what is wrong with its audio."""
        try:
            yield
        except AudioError as error:
            raise AudioError(f"{self.path}: {error}") from None


@contextmanager
def audio_errors(what: str, mend: str) -> Iterator[None]:
    """Turns errors of libsndfile and of the operating system into a sentence."""
    try:
        yield
    except (soundfile.LibsndfileError, OSError) as error:
        raise AudioError(f"{what} ({_reason(error)}): {mend}") from None


def _reason(error: Exception) -> str:
    if isinstance(error, soundfile.LibsndfileError):
        return str(error.error_string).strip().rstrip(".")
    return getattr(error, "strerror", None) or str(error)
