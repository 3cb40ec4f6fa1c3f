"""Stems written in blocks, and no file ever half there."""

from __future__ import annotations

import logging
import os
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile

from bsmamba2.errors import AudioError
from bsmamba2.files.encoding import FLOATS, Clip, Encoding
from bsmamba2.files.part_file import PartFile, WriteInProgress
from bsmamba2.files.song_file import BLOCK, audio_errors
from bsmamba2.files.tags import Tags, write_tags

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType

    from bsmamba2.audio.array import Exact

log = logging.getLogger("bsmamba2")

PIECE = 1 << 12
"""Samples written at once: libvorbis puts them on the stack, and crashes on a few seconds."""

FULL_BYTES = 1 << 16
"""A disk with less than this left is full: it did not take a piece, of which it may keep a part."""


class StemFile:
    """One stem on its way to disk: under a temporary name until :meth:`publish`.

    Whoever makes one calls :meth:`discard` in the end, come what may.

    Args:
        stem_path: the final name without its suffix.
        encoding: container and sample format.
        sample_rate: Hz.
        channels: of every block.
        clip: what to do with samples beyond full scale where the format ends there.
        overwrite: whether an existing file may be replaced.
        song: never written onto, whatever ``overwrite`` says; None where there is none.
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
        self._samples = 0
        self._file: Any = None
        """A ``soundfile.SoundFile``, once it is open."""
        self._parts: list[PartFile] = []
        """All that was begun, the present one last."""

    def open(self) -> None:
        """Begins the file.

        Raises:
            AudioError: it exists or cannot be written.
        """
        self._require_free()
        with self._told():
            self._parts.append(PartFile(self.path))
            self._part.open()
            self._file = soundfile.SoundFile(
                self._part.descriptor(),
                "w",
                self._sample_rate,
                self._channels,
                self._encoding.subtype,
                format=self._encoding.format,
            )

    @property
    def _part(self) -> PartFile:
        return self._parts[-1]

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
        samples_in_all = self._samples + samples.shape[-1]
        fitting = self._encoding.for_length(samples_in_all, self._channels)
        if fitting != self._encoding:
            self._go_on_as(fitting, "is longer than its format can tell: it is written as RF64")
        with self._told():
            self._put(samples)
        self._samples = samples_in_all

    def finish(self, tags: Tags) -> int:
        """Closes the file and waits until it is on the disk, still under its temporary name.

        Returns:
            Its length in bytes.
        """
        with self._told():
            self._file.close()
            write_tags(self._part.temporary, self._encoding.format, tags, self.path.name)
            self._part.sync()
            return self._part.temporary.stat().st_size

    def publish(self) -> Path:
        """Gives the finished file its name.

        Raises:
            AudioError: somebody else made a file of that name meanwhile.
        """
        self._require_free()
        with self._told():
            try:
                self._part.publish(self._overwrite)
            except FileExistsError:
                self._require_free()  # says so, if it is still there
                raise
        return self.path

    def withdraw(self) -> None:
        """Takes the name away again, if it was given."""
        if self._parts:
            self._part.withdraw()

    def discard(self) -> None:
        """Removes what is not published."""
        with suppress(soundfile.LibsndfileError, OSError):
            if self._file is not None:
                self._file.close()
        for part in self._parts:
            part.discard()

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
        self._go_on_as(
            self._encoding.as_float(),
            f"leaves full scale, which {self._encoding.subtype} cannot hold: it is written as "
            "32-bit float",
        )
        return samples

    def _go_on_as(self, encoding: Encoding, why: str) -> None:
        """Changes the encoding midway: what was written is copied over, in blocks."""
        was = self._part
        with self._told():
            self._file.close()
            was.set_aside()
        self._encoding = encoding.for_length(self._samples, self._channels)
        self.open()
        if self._samples:  # a FLAC without samples has no header to read
            self._copy(was.temporary)
        was.discard()
        log.warning("%s %s", self.path.name, why)

    def _copy(self, source: Path) -> None:
        with self._told(), soundfile.SoundFile(source) as written:
            for block in written.blocks(BLOCK, dtype="float64", always_2d=True):
                self._put(block.T)

    def _put(self, samples: Exact) -> None:
        frames = _native(samples, self._encoding)
        for start in range(0, len(frames), PIECE):
            self._file.write(frames[start : start + PIECE])

    def _require_free(self) -> None:
        if not os.path.lexists(self.path):
            return
        if self._song is not None and self.path.exists() and self.path.samefile(self._song):
            raise AudioError(f"{self.path} is the song itself: give another directory (-o)")
        if not self._overwrite:
            raise AudioError(
                f"{self.path} exists already: give another directory (-o), allow overwriting "
                "(--overwrite), or go on where a run has ended (--resume)"
            )
        if self.path.is_dir():
            raise AudioError(f"{self.path} is a folder: give another directory (-o)")

    @contextmanager
    def _told(self) -> Iterator[None]:
        with audio_errors(f"{self.path} cannot be written", "give another directory or format"):
            try:
                yield
            except soundfile.LibsndfileError:
                # It says no more than "System error" where the disk is full.
                if shutil.disk_usage(self._stem_path.parent).free < FULL_BYTES:
                    raise AudioError(
                        f"{self.path} cannot be written (no space left on the disk): make room, or "
                        "give another directory (-o)"
                    ) from None
                raise
            except WriteInProgress:
                raise AudioError(
                    f"{self.path} is being made by another run: wait for it, or give another "
                    "directory (-o)"
                ) from None


class StemFiles:
    """The stems of one song on their way to disk; a context manager.

    Leaving it without :meth:`publish` (an error, Ctrl-C) removes what was made.

    Args:
        directory: made where it does not exist.
        names: what each row of a block is written to, below the directory and without a suffix;
            None: not written.
        tags: for every file.

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
        tags: Tags | None = None,
    ) -> None:
        self._overwrite = overwrite
        self._tags = tags or Tags()
        self._files = {
            row: StemFile(directory / name, encoding, sample_rate, channels, clip, overwrite, song)
            for row, name in enumerate(names)
            if name is not None
        }

    def write(self, outputs: Exact) -> None:
        """Takes (outputs, channels, n) in at the end of the files."""
        for row, file in self._files.items():
            file.write(outputs[row])

    def finish(self) -> Mapping[int, tuple[Path, int]]:
        """Puts all files on the disk under their temporary names.

        Returns:
            What each row is going to be called, and its length in bytes.
        """
        sizes = {row: file.finish(self._tags) for row, file in self._files.items()}
        return {row: (self._files[row].path, size) for row, size in sizes.items()}

    def publish(self) -> Mapping[int, Path]:
        """Gives the finished files their names, all or none; returns the name of each row."""
        try:
            return {row: file.publish() for row, file in self._files.items()}
        except BaseException:
            if not self._overwrite:
                for file in self._files.values():
                    file.withdraw()
            raise

    def __enter__(self) -> StemFiles:
        try:
            for file in self._files.values():
                _make_folder(file.path.parent)
                file.open()
        except BaseException:  # nobody leaves what was not entered
            self._discard()
            raise
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


def _make_folder(folder: Path) -> None:
    with audio_errors(f"the folder {folder} cannot be made", "give another directory (-o)"):
        folder.mkdir(parents=True, exist_ok=True)


def _native(samples: Exact, encoding: Encoding) -> Any:
    """(n, channels) in the type that libsndfile writes without a change of any bit.

    It scales floats by 2^(bits-1) - 1 on their way to integers, but shifts integers; so samples for
    an integer format go as 32-bit integers, full scale 2^31.
    """
    frames = np.ascontiguousarray(samples.T)
    if encoding.bits:
        return (frames * 2.0**31).astype(np.int32)
    return frames if encoding.subtype in FLOATS else frames.astype(np.float32)
