"""Separates the songs of one visitor in a thread, with a status that any thread can read."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from bsmamba2.batch.plan import FilePlan, OutputOptions
from bsmamba2.errors import Cancelled, Error, one_line

if TYPE_CHECKING:
    from bsmamba2.formats.manifest import Manifest
    from bsmamba2.pipeline.progress import Progress

log = logging.getLogger("bsmamba2")

_BYTES_PER_SECOND = 44_100 * 2 * 3
"""Of a stem, about: stereo with 24 bits."""


class SongSeparator(Protocol):
    """The part of a :class:`bsmamba2.Separator` that a job uses."""

    @property
    def manifest(self) -> Manifest: ...

    def load(self) -> None: ...

    def separate_planned(
        self,
        plan: FilePlan,
        *,
        progress: Progress | None = None,
        cancel: threading.Event | None = None,
    ) -> dict[str, Path]: ...


@dataclass(frozen=True)
class Settings:
    """What a visitor chose."""

    model: str
    device: str = "auto"
    stems: tuple[str, ...] | None = None
    """None: all."""
    format: str | None = None
    """None: the song's own, or FLAC."""


class Phase(Enum):
    """What a job is doing."""

    WAITING = "waiting for another separation to finish"
    LOADING = "loading the model"
    SEPARATING = "separating"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"


@dataclass(frozen=True)
class Result:
    """One song that is finished."""

    name: str
    files: tuple[Path, ...] = ()
    report: Path | None = None
    tracks: int = 0
    """Rows of the report: the mixture and the stems."""
    error: str = ""
    """Why the song failed, in a sentence."""


@dataclass(frozen=True)
class Status:
    """What a job had done at one moment."""

    phase: Phase = Phase.WAITING
    song: str = ""
    number: int = 0
    """Of the song, from 1."""
    fraction: float = 0.0
    """Of all songs, by their length."""
    left_s: float | None = None
    """Expected time to the end; None while it is not known."""
    results: tuple[Result, ...] = ()
    error: str = ""
    """Why the job as a whole failed."""

    @property
    def has_ended(self) -> bool:
        return self.phase in (Phase.DONE, Phase.CANCELLED, Phase.FAILED)


class SharedModel:
    """Lets one job at a time separate; keeps the model of the last one loaded.

    Two separations at once would take each other's processor and memory, and gain nothing.

    Args:
        load: returns a separator for the name of a model and a device.
    """

    def __init__(self, load: Callable[[str, str], SongSeparator]) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._loaded: tuple[tuple[str, str], SongSeparator] | None = None

    def acquire(self, cancel: threading.Event) -> None:
        """Waits until no other job separates.

        Raises:
            Cancelled: the event was set before.
        """
        while not self._lock.acquire(timeout=0.1):
            if cancel.is_set():
                raise Cancelled("stopped while waiting")

    def release(self) -> None:
        """Lets the next job separate."""
        self._lock.release()

    def get(self, settings: Settings) -> SongSeparator:
        """Returns the separator, loaded; only for the job that has acquired it.

        Raises:
            ModelError, DeviceError, MissingExtra: the model cannot be opened.
        """
        key = (settings.model, settings.device)
        if self._loaded is None or self._loaded[0] != key:
            self._loaded = None  # frees its memory before the next one is loaded
            separator = self._load(*key)
            separator.load()
            self._loaded = key, separator
        return self._loaded[1]


@dataclass
class _Clock:
    """Predicts the end from the audio that is done."""

    total: float
    start: float = field(default_factory=time.monotonic)
    before: float = 0.0

    def left(self, done: float) -> float | None:
        spent = time.monotonic() - self.start
        return spent * (self.total - done) / done if done > 0 else None


class Job:
    """A run over the songs of one visitor.

    Args:
        songs: the files.
        settings: for all of them.
        folder: for their stems and reports; removed by :meth:`close`.
        shared: separates.
        require_room: gets the bytes that a song will take, about; raises an Error if that is too
            much.
    """

    def __init__(
        self,
        songs: Sequence[Path],
        settings: Settings,
        folder: Path,
        shared: SharedModel,
        require_room: Callable[[float], None] = lambda wanted: None,
    ) -> None:
        self.songs = songs
        self.settings = settings
        self.folder = folder
        self.total = len(songs)
        """Number of songs."""
        self._shared = shared
        self._require_room = require_room
        self._cancel = threading.Event()
        self._status = Status()
        self._thread = threading.Thread(target=self._run, name="bsmamba2 job", daemon=True)

    @property
    def status(self) -> Status:
        return self._status

    def start(self) -> None:
        """Begins, and returns at once."""
        self._thread.start()

    def cancel(self) -> None:
        """Stops before the next run of the model; finished songs remain."""
        self._cancel.set()

    def wait(self, seconds: float | None = None) -> Status:
        """Waits until the job has ended, or for so long, and returns its status."""
        self._thread.join(seconds)
        return self._status

    def close(self) -> None:
        """Stops, and removes the files."""
        self.cancel()
        self._thread.join()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self) -> None:
        try:
            self._shared.acquire(self._cancel)
            try:
                self._separate_all()
            finally:
                self._shared.release()
        except Cancelled:
            self._set(phase=Phase.CANCELLED)
        except Error as error:
            self._set(phase=Phase.FAILED, error=one_line(str(error)))
        except Exception as error:
            log.exception("a separation failed")
            self._set(phase=Phase.FAILED, error=_bug(error))

    def _separate_all(self) -> None:
        self._set(phase=Phase.LOADING)
        separator = self._shared.get(self.settings)
        options = OutputOptions(self.settings.stems, format=self.settings.format, report=True)
        plans = [self._plan(number, options, separator) for number in range(self.total)]
        clock = _Clock(sum(plan.seconds for plan in plans if isinstance(plan, FilePlan)))
        for number, (song, plan) in enumerate(zip(self.songs, plans, strict=True), 1):
            if self._cancel.is_set():
                raise Cancelled("stopped between songs")
            self._set(phase=Phase.SEPARATING, song=song.name, number=number)
            result = plan if isinstance(plan, Result) else self._separate(plan, separator, clock)
            self._set(results=(*self._status.results, result))
        self._set(phase=Phase.DONE, fraction=1.0, left_s=0.0)

    def _plan(
        self, number: int, options: OutputOptions, separator: SongSeparator
    ) -> FilePlan | Result:
        """Plans a song in a folder of its own: two songs may have the same name."""
        song = self.songs[number]
        try:
            return options.plan(song, self.folder / f"{number}", separator.manifest)
        except Exception as error:
            return self._failure(song, error)

    def _separate(self, plan: FilePlan, separator: SongSeparator, clock: _Clock) -> Result:
        def progress(done_seconds: float, total_seconds: float) -> None:
            # The header may state no length, or too little.
            clock.total = max(clock.total, clock.before + total_seconds)
            done = clock.before + done_seconds
            self._set(fraction=done / clock.total, left_s=clock.left(done))

        try:
            self._require_room(plan.seconds * _BYTES_PER_SECOND * len(plan.outputs))
            written = separator.separate_planned(plan, progress=progress, cancel=self._cancel)
        except Exception as error:
            return self._failure(plan.song, error)
        finally:
            clock.before += plan.seconds
        tracks = 1 + len(separator.manifest.outputs)
        return Result(plan.song.name, tuple(written.values()), plan.report, tracks)

    def _failure(self, song: Path, error: Exception) -> Result:
        """Returns the result of a song that failed; its sentence has the song's name, not its path.

        Raises:
            Cancelled: that is why it failed.
        """
        if isinstance(error, Cancelled):
            raise error
        if not isinstance(error, Error):
            log.exception("a song failed", exc_info=error)
        text = str(error) if isinstance(error, Error) else _bug(error)
        folder = f"{self.folder}/"
        text = text.replace(str(song), song.name).replace(folder, "")
        return Result(song.name, error=one_line(text))

    def _set(self, **changes: object) -> None:
        self._status = replace(self._status, **changes)  # type: ignore[arg-type]


def _bug(error: Exception) -> str:
    return one_line(f"{type(error).__name__}: {error}: this is a bug in bsmamba2, please report it")
