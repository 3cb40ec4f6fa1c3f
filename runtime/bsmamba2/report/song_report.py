"""The report of a song that is being separated, in a file that appears when it is complete."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from bsmamba2.audio.array import Exact
from bsmamba2.errors import AudioError
from bsmamba2.files.part_file import PartFile, WriteInProgress
from bsmamba2.files.song_file import audio_errors
from bsmamba2.report.page import page
from bsmamba2.report.recorder import Recorder

if TYPE_CHECKING:
    from bsmamba2.files.song_file import SongFile
    from bsmamba2.files.wav_reader import WavReader
    from bsmamba2.formats.manifest import Manifest
    from bsmamba2.report.facts import Facts

SIZE_MB = 10.0
"""What a page has at most, in millions of bytes."""
MIN_MB = 1.0


class SongReport:
    """Records a song while it is separated; a context manager around :meth:`publish`.

    Leaving it without :meth:`publish` (an error, Ctrl-C) removes the file.

    Args:
        path: of the page; its folder is created if it does not exist.
        song: that is being read.
        model: which separates it.
        overwrite: whether an existing file may be replaced.
        size_mb: what the page may have, in millions of bytes.

    Raises:
        AudioError: the file exists or cannot be written, or the size is out of range.
    """

    def __init__(
        self,
        path: Path,
        song: SongFile | WavReader,
        model: Manifest,
        overwrite: bool,
        size_mb: float = SIZE_MB,
    ) -> None:
        self.path = path
        self._song = song
        self._overwrite = overwrite
        self._outputs = model.outputs
        require_size(size_mb)
        self._recorder = Recorder(
            model.outputs, song.sample_rate, song.channels, song.samples, int(size_mb * 1e6)
        )
        self._part = PartFile(path)

    def heard(self, blocks: Iterable[npt.NDArray[Any]]) -> Iterator[npt.NDArray[Any]]:
        """Passes the blocks of the song on, and keeps them until their stems arrive."""
        for block in blocks:
            self._recorder.expect(block)
            yield block

    def push(self, outputs: Exact) -> None:
        """Takes (outputs, channels, n) in the order of the manifest's ``available``."""
        self._recorder.push(outputs[: len(self._outputs)])

    def finish(self, facts: Facts) -> None:
        """Completes the page on the disk, under its temporary name."""
        text = page(self._recorder.finish(), self._song.path.name, facts)
        with self._write_errors():
            with os.fdopen(self._part.descriptor(), "w", encoding="utf-8") as file:
                file.write(text)
            self._part.sync()

    def publish(self) -> None:
        """Gives the page its final name."""
        with self._write_errors():
            self._part.publish(self._overwrite)

    def __enter__(self) -> SongReport:
        with self._write_errors():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            require_free(self.path, self._song.path, self._overwrite)
            self._part.open()
        return self

    def __exit__(self, *_: object) -> None:
        self._part.discard()

    @contextmanager
    def _write_errors(self) -> Iterator[None]:
        with audio_errors(f"{self.path} cannot be written", "choose another directory"):
            try:
                yield
            except WriteInProgress:
                raise AudioError(
                    f"{self.path} is being written by another run: wait for it, or choose another "
                    "file"
                ) from None


def require_free(path: Path, song: Path, overwrite: bool) -> None:
    """Requires the file of a report not to exist, or to be one that may be replaced.

    Raises:
        AudioError: the file exists, or is a folder or the song itself.
    """
    if path.exists() and path.samefile(song):
        raise AudioError(f"{path} is the song itself: choose another file")
    if path.is_dir():
        raise AudioError(f"{path} is a folder: name a file in it, e.g. {path / 'report.html'}")
    if os.path.lexists(path) and not overwrite:
        raise AudioError(
            f"{path} exists already: choose another file, or allow overwriting with overwrite=True"
        )


def require_size(size_mb: float) -> None:
    """Requires a size that a page can have.

    Raises:
        AudioError: it is too small.
    """
    if not MIN_MB <= size_mb <= 1000:
        raise AudioError(f"size_mb must be {MIN_MB:g} to 1000 MB; got {size_mb:g}")
