"""Writes stems in blocks; a file gets its final name only when it is complete."""

from __future__ import annotations

import logging
import math
import os
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile

from bsmamba2.errors import AudioError
from bsmamba2.files.encoding import FLOATS, Clip, Encoding
from bsmamba2.files.naming import require_lengths
from bsmamba2.files.native_chunks import NativeChunks, complete_chunks
from bsmamba2.files.ogg_pages import set_serial
from bsmamba2.files.part_file import PartFile, WriteInProgress
from bsmamba2.files.song_file import BLOCK, audio_errors, open_with_libsndfile
from bsmamba2.files.speakers import to_ogg_order
from bsmamba2.files.tags import Tags, write_tags

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType

    from bsmamba2.audio.array import Exact

log = logging.getLogger("bsmamba2")

PIECE = 1 << 12
"""Samples per call of libsndfile: libvorbis keeps them on the stack, and more would overflow it."""

FULL_BYTES = 1 << 16
"""After a failed write, a disk with fewer free bytes counts as full; it need not have 0 left."""


class StemFile:
    """One stem that is being written, under a temporary name until :meth:`publish`.

    Callers must always call :meth:`discard`, even after an error.

    Args:
        stem_path: the final name without its suffix.
        encoding: container and sample format.
        sample_rate: Hz.
        channels: number of channels of every block.
        clip: what to do with samples beyond full scale if the format cannot hold them.
        overwrite: whether an existing file may be replaced.
        song: the song, which is never overwritten, even with ``overwrite``; None for an array.
        speaker_mask: the speakers of the channels, see :mod:`bsmamba2.files.speakers`.
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
        speaker_mask: int | None = None,
    ) -> None:
        self._stem_path = stem_path
        self._encoding = encoding
        self._sample_rate = sample_rate
        self._channels = channels
        self._clip = clip
        self._overwrite = overwrite
        self._song = song
        self._speaker_mask = speaker_mask
        self._samples = 0
        self._peak = 0.0
        """The largest sample beyond full scale of a lossy format."""
        self._file: Any = None
        """A ``soundfile.SoundFile`` after :meth:`open`."""
        self._parts: list[PartFile] = []
        """Every file that was opened, the current one last."""

    def open(self) -> None:
        """Opens the file.

        Raises:
            AudioError: the file exists or cannot be written.
        """
        require_lengths(self.path)
        self._require_free()
        with self._write_errors():
            self._parts.append(PartFile(self.path))
            self._part.open()
            encoding = self._encoding.with_speakers(self._speaker_mask, self._channels)
            self._file = soundfile.SoundFile(
                self._part.descriptor(),
                "w",
                self._sample_rate,
                self._channels,
                **encoding.writer_options(self._sample_rate, self._channels),
            )

    @property
    def _part(self) -> PartFile:
        return self._parts[-1]

    @property
    def path(self) -> Path:
        """The final name; its suffix changes if the samples do not fit the container."""
        return self._stem_path.with_name(self._stem_path.name + self._encoding.suffix)

    def write(self, samples: Exact) -> None:
        """Appends (channels, n); for an integer format the samples must be on its grid.

        Raises:
            AudioError: the file cannot be written, or a sample exceeds full scale and ``clip`` is
                ``error``.
        """
        if self._encoding.bits:
            samples = self._fit(samples)
        elif not self._encoding.lossless:
            samples = self._fit_lossy(samples)
        total_samples = self._samples + samples.shape[-1]
        fitting = self._encoding.for_length(total_samples, self._channels)
        if fitting != self._encoding:
            self._switch_to(fitting, "is too long for its format's header: it is written as RF64")
        with self._write_errors():
            self._append(samples)
        self._samples = total_samples

    def finish(self, tags: Tags) -> int:
        """Closes and tags the file, and waits until it is on the disk under its temporary name.

        Returns:
            The file's length in bytes.
        """
        with self._write_errors():
            self._file.close()
            if self._encoding.format == "OGG":
                set_serial(self._part.temporary)
            write_tags(
                self._part.temporary,
                self._encoding.format,
                tags.with_speakers(self._speaker_mask, self._channels),
                self.path.name,
            )
            native = tags.native if tags.native.fits(self._encoding.format) else NativeChunks()
            complete_chunks(self._part.temporary, native, self._speaker_mask)
            self._part.sync()
            size = self._part.temporary.stat().st_size
        if self._peak:
            excess_db = 20 * math.log10(self._peak)
            log.warning(
                "%s exceeds full scale by %.1f dB: players may clip it", self.path.name, excess_db
            )
        return size

    def publish(self) -> Path:
        """Renames the finished file to its final name.

        Raises:
            AudioError: another process has created a file of that name.
        """
        self._require_free()
        with self._write_errors():
            try:
                self._part.publish(self._overwrite)
            except FileExistsError:
                self._require_free()  # raises the clearer error if the file still exists
                raise
        return self.path

    def withdraw(self) -> None:
        """Removes the file under its final name, if it was published."""
        if self._parts:
            self._part.withdraw()

    def discard(self) -> None:
        """Removes the temporary files."""
        with suppress(soundfile.LibsndfileError, OSError):
            if self._file is not None:
                self._file.close()
        for part in self._parts:
            part.discard()

    def _fit(self, samples: Exact) -> Exact:
        """Applies ``clip`` to samples that exceed full scale of an integer format."""
        low, high = -1.0, 1.0 - self._encoding.step
        if samples.min(initial=0) >= low and samples.max(initial=0) <= high:
            return samples
        if self._clip == "clip":
            return np.clip(samples, low, high)
        if self._clip == "error":
            raise AudioError(
                f"{self.path.name} exceeds full scale, which {self._encoding.subtype} cannot hold: "
                "use clip='float', clip='clip' or subtype='float'"
            )
        self._switch_to(
            self._encoding.as_float(),
            f"exceeds full scale, which {self._encoding.subtype} cannot hold: it is written as "
            "32-bit float",
        )
        return samples

    def _fit_lossy(self, samples: Exact) -> Exact:
        """Applies ``clip`` to samples beyond full scale of a lossy format, which may hold them."""
        peak = float(np.abs(samples).max(initial=0))
        if peak <= 1:
            return samples
        if self._clip == "clip":
            return np.clip(samples, -1, 1)
        if self._clip == "error":
            raise AudioError(
                f"{self.path.name} exceeds full scale: use clip='float', clip='clip' or "
                "subtype='float'"
            )
        self._peak = max(self._peak, peak)
        return samples

    def _switch_to(self, encoding: Encoding, why: str) -> None:
        """Changes the encoding midway: copies the samples written so far, in blocks."""
        previous = self._part
        with self._write_errors():
            self._file.close()
            previous.set_aside()
        self._encoding = encoding.for_length(self._samples, self._channels)
        self.open()
        if self._samples:  # a FLAC without samples has no header to read
            self._copy(previous.temporary)
        previous.discard()
        log.warning("%s %s", self.path.name, why)

    def _copy(self, source: Path) -> None:
        with self._write_errors(), open_with_libsndfile(source) as written:
            for block in written.blocks(BLOCK, dtype="float64", always_2d=True):
                self._append(block.T)

    def _append(self, samples: Exact) -> None:
        frames = _to_native(samples, self._encoding)
        for start in range(0, len(frames), PIECE):
            self._file.write(frames[start : start + PIECE])

    def _require_free(self) -> None:
        if not os.path.lexists(self.path):
            return
        if self._song is not None and self.path.exists() and self.path.samefile(self._song):
            raise AudioError(f"{self.path} is the song itself: choose another directory")
        if not self._overwrite:
            resuming = ", or continue an earlier run with resume=True" if self._song else ""
            raise AudioError(
                f"{self.path} exists already: choose another directory, or allow overwriting with "
                f"overwrite=True{resuming}"
            )
        if self.path.is_dir():
            raise AudioError(f"{self.path} is a folder: choose another directory")

    @contextmanager
    def _write_errors(self) -> Iterator[None]:
        with audio_errors(f"{self.path} cannot be written", "choose another directory or format"):
            try:
                yield
            except soundfile.LibsndfileError:
                # libsndfile reports a full disk only as "System error".
                if shutil.disk_usage(self._stem_path.parent).free < FULL_BYTES:
                    raise AudioError(
                        f"{self.path} cannot be written (no space left on the disk): free some "
                        "space, or choose another directory"
                    ) from None
                raise
            except WriteInProgress:
                raise AudioError(
                    f"{self.path} is being written by another run: wait for it, or choose "
                    "another directory"
                ) from None


class StemFiles:
    """The stems of one song that are being written; a context manager.

    Leaving it without :meth:`publish` (an error, Ctrl-C) removes the files.

    Args:
        directory: created if it does not exist.
        names: path for each row of a block, relative to the directory and without a suffix; None
            skips the row.
        tags: written to every file.

    The other arguments and the errors are those of :class:`StemFile`.
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
        speaker_mask: int | None = None,
    ) -> None:
        self._overwrite = overwrite
        self._tags = Tags() if tags is None else tags
        self._files = {
            row: StemFile(
                directory / name,
                encoding,
                sample_rate,
                channels,
                clip,
                overwrite,
                song,
                speaker_mask,
            )
            for row, name in enumerate(names)
            if name is not None
        }

    def write(self, outputs: Exact) -> None:
        """Appends (outputs, channels, n) to the files."""
        for row, file in self._files.items():
            file.write(outputs[row])

    def finish(self) -> Mapping[int, tuple[Path, int]]:
        """Completes all files on the disk, under their temporary names.

        Returns:
            The final path and the length in bytes of each row.
        """
        sizes = {row: file.finish(self._tags) for row, file in self._files.items()}
        return {row: (self._files[row].path, size) for row, size in sizes.items()}

    def publish(self) -> Mapping[int, Path]:
        """Renames the finished files to their final names, all or none; returns each row's path."""
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
                _create_folder(file.path.parent)
                file.open()
        except BaseException:  # __exit__ is not called if __enter__ fails
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


def _create_folder(folder: Path) -> None:
    with audio_errors(f"the folder {folder} cannot be created", "choose another directory"):
        folder.mkdir(parents=True, exist_ok=True)


def _to_native(samples: Exact, encoding: Encoding) -> Any:
    """Converts to (n, channels) in the type that libsndfile writes without changing any bit.

    libsndfile scales floats by 2^(bits-1) - 1 to convert them to integers, but shifts integers; so
    samples for an integer format are passed as 32-bit integers, full scale 2^31.
    """
    if encoding.format == "OGG":
        samples = samples[to_ogg_order(len(samples))]
    frames = np.ascontiguousarray(samples.T)
    if encoding.bits:
        return (frames * 2.0**31).astype(np.int32)
    return frames if encoding.subtype in FLOATS else frames.astype(np.float32)
