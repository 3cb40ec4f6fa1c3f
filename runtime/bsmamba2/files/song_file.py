"""Reads songs in blocks, so that memory does not grow with their length."""

from __future__ import annotations

import logging
import os
import stat
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile

from bsmamba2.audio.array import require_finite
from bsmamba2.audio.channels import require_channels
from bsmamba2.audio.resample import require_rate
from bsmamba2.errors import AudioError, MissingExtra, first_line, printable
from bsmamba2.files.av_file import AvFile
from bsmamba2.files.encoding import Encoding
from bsmamba2.files.excerpt import WHOLE, Excerpt
from bsmamba2.files.joined_files import flac_starts
from bsmamba2.files.native_chunks import read_native_chunks
from bsmamba2.files.speakers import IMPLIED_MASKS, mask_of, to_wav_order
from bsmamba2.files.structure import read_structure
from bsmamba2.installation import install_command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bsmamba2.audio.array import Exact

log = logging.getLogger("bsmamba2")

BLOCK = 1 << 16
"""Samples to read or copy per call."""

UNKNOWN_SAMPLES = 1 << 62
"""libsndfile's length of a FLAC file without one is about this."""


class SequentialFile(soundfile.SoundFile):  # type: ignore[misc]  # it has no types
    """A file whose reads continue where the last one ended.

    After every read, soundfile seeks to where the file already is, unless it cannot seek. A decoder
    of MP3 then starts again, and returns zeros for up to a frame if it lacks the ones before.
    """

    def seekable(self) -> bool:
        return False

    def can_seek(self) -> bool:
        """Whether :meth:`seek` works."""
        return bool(super().seekable())


PREROLL_S = 1
"""A lossy decoder needs some frames before its output is that of a song decoded from the start."""


class SongFile:
    """A song on disk, or an excerpt of it, that can be read once, in blocks; a context manager.

    libsndfile reads it, or FFmpeg if libsndfile refuses it, would stop early, or fails midway.
    Where the decoder can seek to a sample, what precedes an excerpt is not decoded.

    Args:
        path: the file.
        excerpt: the part to read.

    Raises:
        AudioError: the file is missing, unreadable, empty or incomplete, has an unsupported rate
            or number of channels, or ends before the excerpt starts.
        MissingExtra: only FFmpeg can read it, and PyAV is not installed.
    """

    def __init__(self, path: str | os.PathLike[str], excerpt: Excerpt = WHOLE) -> None:
        self.path = Path(path)
        self._excerpt = excerpt
        with audio_errors(f"{self.path} cannot be opened", "check its name"):
            mode = self.path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise AudioError(f"{self.path} is a folder: name the songs in it, e.g. {self.path}/*")
        if not stat.S_ISREG(mode):
            raise AudioError(f"{self.path} is not a regular file: copy the song to a file first")
        if self.path.stat().st_size == 0:
            raise AudioError(f"{self.path} is an empty file: get a new copy")
        with audio_errors(f"{self.path} cannot be opened", "check its permissions"):
            self._structure = read_structure(self.path)
        if self._structure.missing:
            raise AudioError(
                f"{self.path} is incomplete or damaged ({self._structure.missing}): get a new "
                "copy, or convert it to WAV or FLAC to separate what is there"
            )
        self._file = self._open()
        self._stated = int(self._file.frames)
        if self._structure.samples is not None:
            self._stated = min(self._stated, self._structure.samples)
        if len(self._structure.starts) > 1 and self._structure.seconds is None:
            self._stated = 0
        try:
            with self._naming_the_song():
                require_channels(self.channels)
                require_rate(self.sample_rate)
                self._first, self._stop = excerpt.bounds(self.sample_rate)
                if 0 < self._stated <= self._first and self._file.format != "MP3":
                    raise self._starts_after(self._stated)
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
        """The length according to the header; 0 if it states none. It may be wrong."""
        stop = self._stated if self._stop is None else min(self._stop, self._stated or self._stop)
        return max(0, stop - self._first)

    @property
    def label(self) -> str:
        """What the names of the excerpt's files end with, by the length in the header."""
        length_s = self._stated / self.sample_rate
        if self._file.format == "MP3":  # libsndfile may give too few
            length_s = max(length_s, self._structure.seconds or 0)
        return self._excerpt.label(length_s or None)

    @property
    def first(self) -> int:
        """The sample of the file that the first one is."""
        return self._first

    @property
    def speaker_mask(self) -> int | None:
        """The speakers of the channels, see :mod:`bsmamba2.files.speakers`; None if unknown."""
        if isinstance(self._file, AvFile):
            return mask_of(self._file.speakers)
        if self._file.format == "OGG" and self.channels > 2:
            return IMPLIED_MASKS.get(self.channels)
        with audio_errors(f"{self.path} cannot be read", "check its permissions"):
            return read_native_chunks(self.path).speaker_mask

    @property
    def encoding(self) -> Encoding:
        return Encoding(self._file.format, self._file.subtype, self.path.suffix)

    def blocks(self) -> Iterator[Exact]:
        """Yields the samples, (channels, n) in float64, full scale ±1.

        Raises:
            AudioError: the file cannot be read to its end, is shorter than it states, was truncated
                while it was read, has no samples, or has a sample that is not finite.
        """
        size = self.path.stat().st_size
        self._join_flac()
        at = self._go_to_start()
        is_empty = True
        while at != self._stop and len(frames := self._read(at)):
            with self._naming_the_song():
                require_finite(frames.T, self.sample_rate, at)
            at += len(frames)
            is_empty = False
            yield frames.T
        if at == self._stop:  # what follows an excerpt may be anything
            return
        # If a file is truncated while it is read, libsndfile only reports the end of the song.
        if self._is_shorter_than(size):
            raise AudioError(
                f"{self.path} was truncated while it was read, at "
                f"{at / self.sample_rate:.1f} s: get a new copy"
            )
        if at == 0:
            raise AudioError(f"{self.path} has no samples: choose a song that is not empty")
        self._require_all(at)
        if is_empty:
            with self._naming_the_song():
                raise self._starts_after(at)
        if self._structure.doubt:
            log.warning(
                "%s may be incomplete (%s): what is there, %.1f s, is separated",
                self.path.name,
                self._structure.doubt,
                at / self.sample_rate,
            )

    def _join_flac(self) -> None:
        """Lets FFmpeg read FLAC files that were joined; only reading all of the file shows it."""
        if self._file.format != "FLAC" or self._stop is not None or self._structure.starts != (0,):
            return
        with audio_errors(f"{self.path} cannot be read", "check its disk"):
            starts = flac_starts(self.path)
        if len(starts) == 1:
            return
        why = f"{len(starts)} files are joined in it, and libsndfile reads the first"
        self._structure = replace(self._structure, beyond_libsndfile=why, starts=starts)
        file = self._open()
        self._file.close()
        self._file, self._stated = file, 0

    def _go_to_start(self) -> int:
        """Moves to the first sample; returns where the song ended if it ends before."""
        at = self._seek() if self._first else 0
        while at < self._first and len(frames := self._read(at, self._first)):
            at += len(frames)
        return at

    def _seek(self) -> int:
        """Moves to the first sample or before it, without decoding; returns the position."""
        is_lossless = self.encoding.lossless
        at = self._first if is_lossless else max(0, self._first - PREROLL_S * self.sample_rate)
        if at == 0 or at > self._stated or not self._file.can_seek():
            return 0
        try:
            return int(self._file.seek(at))
        except (soundfile.LibsndfileError, OSError):
            self._file.close()
            self._file = self._open()
            return 0

    def _starts_after(self, samples: int) -> AudioError:
        length_s = samples / self.sample_rate
        return AudioError(
            f"start_s must be before the end of the song, {length_s:g} s; got "
            f"{self._excerpt.start_s:g}"
        )

    def _read(self, start: int, stop: int | None = None) -> Exact:
        """Reads the block at ``start``; where libsndfile fails, FFmpeg continues.

        Args:
            start: the position in the file.
            stop: where to stop, at the latest. Default: where the excerpt does.
        """
        stop = self._stop if stop is None else stop
        count = BLOCK if stop is None else min(BLOCK, stop - start)
        if self._file.format in ("FLAC", "W64") and self._stated > 0:
            count = min(count, self._stated - start)  # libsndfile reads what follows too
        try:
            frames: Exact = self._file.read(count, dtype="float64", always_2d=True)
            if self._file.format == "OGG":
                frames = frames[:, to_wav_order(self.channels)]
        except (soundfile.LibsndfileError, OSError) as error:
            if 0 < self._stated <= start:  # the error is in what follows the song
                return np.empty((0, self.channels))
            seconds = start / self.sample_rate
            self._continue_with_ffmpeg(start, f"libsndfile fails after {seconds:.1f} s", error)
            return self._read(start, stop)
        return frames

    def _continue_with_ffmpeg(self, start: int, what: str, error: Exception) -> None:
        why = f"{what} ({first_line(error)})"
        try:
            file = AvFile(self.path, self._structure, why, self.sample_rate)
        except MissingExtra:
            raise AudioError(
                f"{self.path} cannot be read to the end ({why}): get a new copy, or let FFmpeg "
                f"try: {install_command('av')}"
            ) from None
        except AudioError:
            file = None
        if file is None or file.channels != self.channels:
            raise AudioError(
                f"{self.path} cannot be read to the end ({why}): it is damaged; get a new copy"
            )
        self._file.close()
        self._file = file
        while start > 0:
            start -= len(file.read(min(start, BLOCK)))

    def _require_all(self, samples: int) -> None:
        """Requires what libsndfile read to be as long as stated; of an MP3 it only estimates."""
        if self._file.format == "MP3" and self._structure.seconds is not None:
            stated_s = self._structure.seconds
        else:
            stated_s = self._stated / self.sample_rate
        if not isinstance(self._file, AvFile) and samples / self.sample_rate < stated_s:
            raise AudioError(
                f"{self.path} has only {samples / self.sample_rate:.1f} of {stated_s:.1f} s that "
                "can be read: it is damaged; get a new copy"
            )

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

    def _open(self) -> SequentialFile | AvFile:
        why = f"can only be read with FFmpeg ({self._structure.beyond_libsndfile})"
        if not self._structure.beyond_libsndfile:
            try:
                file = SequentialFile(_name_for_libsndfile(self.path))
                if file.frames < UNKNOWN_SAMPLES:
                    return file
                file.close()
                why = "can only be read with FFmpeg (its header states no length)"
            # TypeError: libsndfile expects raw samples for a name in .raw, and needs their format.
            except (soundfile.LibsndfileError, OSError, TypeError):
                why = "is not audio that libsndfile reads, but FFmpeg may read it"
        return AvFile(self.path, self._structure, why)

    @contextmanager
    def _naming_the_song(self) -> Iterator[None]:
        """Adds the song's path in front of messages about its audio."""
        try:
            yield
        except AudioError as error:
            raise AudioError(f"{self.path}: {error}") from None


def open_with_libsndfile(path: Path) -> soundfile.SoundFile:
    """Opens a file to read."""
    return soundfile.SoundFile(_name_for_libsndfile(path))


def _name_for_libsndfile(path: Path) -> Path | bytes:
    """Returns a name that need not be UTF-8, which soundfile requires of text."""
    return path if os.name == "nt" else os.fsencode(path)


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
    except ValueError as error:
        if "null" not in str(error):  # a path with a NUL
            raise
        raise AudioError(f"{printable(what)} (a path cannot contain NUL): {fix}") from None
