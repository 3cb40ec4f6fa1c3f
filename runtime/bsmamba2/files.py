"""Songs read and stems written in blocks: memory does not grow, and no file is ever half there."""

from __future__ import annotations

import logging
import os
import secrets
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile

from bsmamba2.array import require_finite
from bsmamba2.channels import require_channels
from bsmamba2.encoding import FLOATS, Clip, Encoding
from bsmamba2.errors import AudioError
from bsmamba2.resample import require_rate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType

    from bsmamba2.array import Exact

log = logging.getLogger("bsmamba2")

BLOCK = 1 << 16
"""Samples read or copied at once."""

PIECE = 1 << 12
"""Samples written at once: libvorbis puts them on the stack, and crashes on a few seconds."""


class SongFile:
    """A song on disk, to be read once in blocks; a context manager.

    Raises:
        AudioError: the file is missing, unreadable, empty, or of no song's rate or channels.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        with _sentences(f"{self.path} cannot be opened", "check its name"):
            mode = self.path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise AudioError(f"{self.path} is a folder: give the songs in it, e.g. {self.path}/*")
        if not stat.S_ISREG(mode):
            raise AudioError(f"{self.path} is no file: write the song to one first")
        if self.path.stat().st_size == 0:
            raise AudioError(f"{self.path} is an empty file: get it again")
        try:
            self._file = soundfile.SoundFile(self.path)
        # libsndfile takes a name that ends in .raw for headerless samples, and asks for their type.
        except (soundfile.LibsndfileError, OSError, TypeError) as error:
            raise AudioError(
                f"{self.path} is not audio that libsndfile reads ({_reason(error)}): convert it to "
                "WAV or FLAC first"
            ) from None
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
            AudioError: the file cannot be read on, a sample is not finite, or there is none.
        """
        start = 0
        while True:
            with _sentences(f"{self.path} cannot be read on", "it is damaged, get it again"):
                frames = self._file.read(BLOCK, dtype="float64", always_2d=True)
            if len(frames) == 0:
                break
            with self._named():
                require_finite(frames.T, self.sample_rate, start)
            start += len(frames)
            yield frames.T
        if start == 0:
            raise AudioError(f"{self.path} has no samples: give a song that is not empty")

    def __enter__(self) -> SongFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Puts the song's name before what is wrong with its audio."""
        try:
            yield
        except AudioError as error:
            raise AudioError(f"{self.path}: {error}") from None


class StemFile:
    """One stem on its way to disk: under a temporary name until :meth:`publish`.

    Args:
        stem_path: the final name without its suffix.
        encoding: container and sample format.
        sample_rate: Hz.
        channels: of every block.
        clip: what to do with samples beyond full scale where the format ends there.
        overwrite: whether an existing file may be replaced.
        song: never written onto, whatever ``overwrite`` says; None where there is none.

    Raises:
        AudioError: the file exists or cannot be written.
    """

    def __init__(
        self,
        stem_path: Path,
        encoding: Encoding,
        sample_rate: int,
        channels: int,
        clip: Clip,
        overwrite: bool,
        song: Path | None,
    ) -> None:
        self._stem_path = stem_path
        self._encoding = encoding
        self._sample_rate = sample_rate
        self._channels = channels
        self._clip = clip
        self._overwrite = overwrite
        self._song = song
        self._require_free()
        self._temporary, self._file = self._open()
        self._empty = True

    @property
    def path(self) -> Path:
        """The final name; its suffix changes where WAV has to take what does not fit."""
        return self._stem_path.with_name(self._stem_path.name + self._encoding.suffix)

    def write(self, samples: Exact) -> None:
        """Takes (channels, n) in at the end; in an integer format they are on its grid.

        Raises:
            AudioError: the disk does not take it, or clip is ``error`` and it leaves full scale.
        """
        if self._encoding.bits:
            samples = self._fit(samples)
        with self._told():
            self._put(samples)
        self._empty = False

    def finish(self) -> None:
        """Closes the file and waits until it is on the disk, still under its temporary name."""
        with self._told():
            self._file.close()
            with self._temporary.open("rb+") as file:
                os.fsync(file.fileno())

    def publish(self) -> Path:
        """Gives the finished file its name.

        Raises:
            AudioError: somebody else made a file of that name meanwhile.
        """
        self._require_free()
        with self._told():
            self._temporary.replace(self.path)
        return self.path

    def discard(self) -> None:
        """Removes what is not published."""
        with suppress(soundfile.LibsndfileError, OSError):
            self._file.close()
        self._temporary.unlink(missing_ok=True)

    def _fit(self, samples: Exact) -> Exact:
        """Samples of an integer format, with those beyond full scale treated as ``clip`` says."""
        low, high = -1.0, 1.0 - self._encoding.step
        if samples.min(initial=0) >= low and samples.max(initial=0) <= high:
            return samples
        if self._clip == "clip":
            return np.clip(samples, low, high)
        if self._clip == "error":
            raise AudioError(
                f"{self.path.name} leaves full scale, which {self._encoding.subtype} cannot hold: "
                "use --clip float or --clip clip, or a --subtype that holds it"
            )
        self._promote()
        return samples

    def _promote(self) -> None:
        """Goes on as 32-bit float: what was written is copied over, in blocks."""
        was, encoding = self._temporary, self._encoding
        with self._told():
            self._file.close()
        self._encoding = encoding.as_float()
        try:
            self._require_free()
            self._temporary, self._file = self._open()
            if not self._empty:  # a FLAC without samples has no header to read
                self._copy(was)
        finally:
            was.unlink(missing_ok=True)
        log.warning(
            "%s leaves full scale, which %s cannot hold: it is written as 32-bit float",
            self.path.name,
            encoding.subtype,
        )

    def _copy(self, source: Path) -> None:
        with self._told(), soundfile.SoundFile(source) as written:
            for block in written.blocks(BLOCK, dtype="float64", always_2d=True):
                self._put(block.T)

    def _put(self, samples: Exact) -> None:
        frames = _native(samples, self._encoding)
        for start in range(0, len(frames), PIECE):
            self._file.write(frames[start : start + PIECE])

    def _open(self) -> tuple[Path, soundfile.SoundFile]:
        """A new file under a name that nobody else uses, in the folder of the final one."""
        temporary = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}.part")
        try:
            with self._told():
                file = soundfile.SoundFile(
                    temporary,
                    "w",
                    self._sample_rate,
                    self._channels,
                    self._encoding.subtype,
                    format=self._encoding.format,
                )
        except AudioError:
            temporary.unlink(missing_ok=True)
            raise
        return temporary, file

    def _require_free(self) -> None:
        if not os.path.lexists(self.path):
            return
        if self._song is not None and self.path.exists() and self.path.samefile(self._song):
            raise AudioError(f"{self.path} is the song itself: give another directory (-o)")
        if not self._overwrite:
            raise AudioError(
                f"{self.path} exists already: give another directory (-o), or allow overwriting "
                "(--overwrite)"
            )
        if self.path.is_dir():
            raise AudioError(f"{self.path} is a folder: give another directory (-o)")

    def _told(self) -> Any:
        return _sentences(f"{self.path} cannot be written", "give another directory or format")


class StemFiles:
    """The stems of one song on their way to disk; a context manager.

    Leaving it without :meth:`publish` (an error, Ctrl-C) removes what was made.

    Args:
        directory: made where it does not exist.
        names: what each row of a block is written to, without folder and suffix; None: not written.

    The other arguments and errors are those of :class:`StemFile`.
    """

    def __init__(
        self,
        directory: Path,
        names: Sequence[str | None],
        encoding: Encoding,
        sample_rate: int,
        channels: int,
        *,
        clip: Clip,
        overwrite: bool,
        song: Path | None = None,
    ) -> None:
        with _sentences(f"the folder {directory} cannot be made", "give another directory (-o)"):
            directory.mkdir(parents=True, exist_ok=True)
        self._files: dict[int, StemFile] = {}
        try:
            for row, name in enumerate(names):
                if name is not None:
                    path = directory / name
                    self._files[row] = StemFile(
                        path, encoding, sample_rate, channels, clip, overwrite, song
                    )
        except BaseException:
            self._discard()
            raise

    def write(self, outputs: Exact) -> None:
        """Takes (outputs, channels, n) in at the end of the files."""
        for row, file in self._files.items():
            file.write(outputs[row])

    def publish(self) -> Mapping[int, Path]:
        """Finishes all files, then gives them their names; returns the name of each row."""
        for file in self._files.values():
            file.finish()
        return {row: file.publish() for row, file in self._files.items()}

    def __enter__(self) -> StemFiles:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._discard()

    def _discard(self) -> None:
        for file in self._files.values():
            file.discard()


def _native(samples: Exact, encoding: Encoding) -> Any:
    """(n, channels) in the type that libsndfile writes without a change of any bit.

    It scales floats by 2^(bits-1) - 1 on their way to integers, but shifts integers; so samples for
    an integer format go as 32-bit integers, full scale 2^31.
    """
    frames = np.ascontiguousarray(samples.T)
    if encoding.bits:
        return (frames * 2.0**31).astype(np.int32)
    return frames if encoding.subtype in FLOATS else frames.astype(np.float32)


@contextmanager
def _sentences(what: str, mend: str) -> Iterator[None]:
    """Turns errors of libsndfile and of the operating system into a sentence."""
    try:
        yield
    except (soundfile.LibsndfileError, OSError) as error:
        raise AudioError(f"{what} ({_reason(error)}): {mend}") from None


def _reason(error: Exception) -> str:
    if isinstance(error, soundfile.LibsndfileError):
        return str(error.error_string).strip().rstrip(".")
    return getattr(error, "strerror", None) or str(error)
