"""Separates many songs one after the other: plans them first, and continues after a failure."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bsmamba2.batch.plan import FilePlan, OutputOptions, find_songs, resolved, without_own_outputs
from bsmamba2.batch.record import RecordedStems
from bsmamba2.errors import AudioError, Cancelled, Error
from bsmamba2.files.part_file import remove_leftovers
from bsmamba2.files.wav_reader import STDIN

if TYPE_CHECKING:
    from bsmamba2.formats.manifest import Manifest
    from bsmamba2.pipeline.progress import Progress


class SongSeparator(Protocol):
    """The part of a :class:`bsmamba2.Separator` that a batch uses; it is in a higher layer."""

    @property
    def manifest(self) -> Manifest: ...

    def separate_planned(
        self,
        plan: FilePlan,
        *,
        overwrite: bool = False,
        record: bool = False,
        resume: bool = False,
        progress: Progress | None = None,
    ) -> dict[str, Path]: ...


class Watcher(Protocol):
    """Receives the progress of a batch."""

    def begin(self, plans: Sequence[FilePlan]) -> None: ...
    def song(self, plan: FilePlan) -> None: ...
    def report(self, done_seconds: float, total_seconds: float, speed: float) -> None: ...
    def ended(self, plan: FilePlan) -> None: ...


@dataclass(frozen=True)
class Outcome:
    """The result of one song."""

    song: Path
    outputs: Mapping[str, Path] = field(default_factory=dict)
    """The file of each stem; empty if the song failed."""
    error: str = ""
    """Why the song failed, in a sentence that names it; empty if it succeeded."""
    is_bug: bool = False
    """Whether the song failed because of a bug."""
    was_done: bool = False
    """Whether an earlier run had written the stems."""
    seconds: float = 0.0
    """Duration of the separation."""
    song_seconds: float = 0.0
    """Length of the song."""
    report: Path | None = None
    """The page about the separation, if one was wanted."""

    def to_json(self) -> dict[str, Any]:
        """Returns the fields for a JSON object."""
        if self.error:
            return {"error": self.error}
        outputs: dict[str, Any] = {"outputs": {k: str(path) for k, path in self.outputs.items()}}
        outputs |= {"report": str(self.report)} if self.report else {}
        if self.was_done:
            return {**outputs, "resumed": True}
        speed = self.song_seconds / self.seconds if self.seconds else 0.0
        return {**outputs, "seconds": round(self.seconds, 3), "speed": round(speed, 3)}


class Batch:
    """A run over many songs.

    Args:
        separator: writes the stems.
        options: shared by all songs.
        watcher: receives the progress.
        overwrite, resume: as in :meth:`bsmamba2.Separator.separate_file`.
    """

    def __init__(
        self,
        separator: SongSeparator,
        options: OutputOptions,
        watcher: Watcher,
        *,
        overwrite: bool = False,
        resume: bool = False,
    ) -> None:
        self._separator = separator
        self._options = options
        self._watcher = watcher
        self._overwrite = overwrite
        self._resume = resume
        self.plans: list[FilePlan] = []
        """The songs that will be separated."""
        self.outcomes: list[Outcome] = []
        """The results of songs that are finished, successfully or not."""

    @property
    def done(self) -> list[Outcome]:
        """The results of songs that an earlier run had finished."""
        return [outcome for outcome in self.outcomes if outcome.was_done]

    def plan(self, paths: Iterable[Path], directory: Path | None) -> None:
        """Finds the songs, reads their headers, and plans those that are not done.

        Songs that cannot be separated get an outcome immediately; with ``resume``, so do songs that
        are done. A song that is named twice is separated once.

        Args:
            paths: songs and folders of songs.
            directory: folder for the stems. Default: the song's own.

        Raises:
            AudioError, ModelError: the stems or the template fit no song.
        """
        self._options.selected_stems(self._separator.manifest)
        paths, plans, named = list(paths), [], []
        for path in paths:
            try:
                for song, folder, is_named in find_songs([path], directory, self._record_failure):
                    named += [song] * is_named
                    if plan := self._plan_song(song, folder):
                        plans.append(plan)
            except Error as error:
                self._record_failure(path, error)
        songs_by_name: dict[Path, Path] = {}
        for plan in without_own_outputs(plans, named):
            rival = self._rival(plan, songs_by_name)
            if rival is not None and _is_same_file(rival, plan.song):
                continue
            if rival is not None:
                self._record_failure(
                    plan.song,
                    AudioError(
                        f"{plan.song} and {rival} would be written to the same files: choose "
                        "another folder for one of them, or a template with {source_ext}, "
                        "{track}, {artist} or {title}"
                    ),
                )
            elif self._resume and (stored := self._complete(plan)):
                for path in stored.outputs.values():
                    remove_leftovers(path)
                self.outcomes.append(
                    Outcome(plan.song, stored.outputs, was_done=True, report=plan.report)
                )
            else:
                self.plans.append(plan)

    def run(self) -> Iterator[Outcome]:
        """Separates the planned songs; yields the outcome of every song, known outcomes first.

        Raises:
            Cancelled: the caller stopped it.
        """
        yield from list(self.outcomes)
        self._watcher.begin(self.plans)
        for plan in self.plans:
            self._watcher.song(plan)
            yield self._run(plan)
            self._watcher.ended(plan)

    def _run(self, plan: FilePlan) -> Outcome:
        clock = Clock(self._watcher.report)
        try:
            outputs = self._separator.separate_planned(
                plan,
                overwrite=self._overwrite,
                record=True,
                resume=self._resume,
                progress=clock.report,
            )
        except Cancelled:
            raise
        except Exception as error:
            if os.environ.get("BSMAMBA2_DEBUG") and not isinstance(error, Error):
                raise
            return self._record_failure(plan.song, error)
        outcome = Outcome(
            plan.song,
            outputs,
            seconds=clock.seconds(),
            song_seconds=clock.song_seconds,
            report=plan.report,
        )
        self.outcomes.append(outcome)
        return outcome

    def _plan_song(self, song: Path, directory: Path | None) -> FilePlan | None:
        try:
            return self._options.plan(song, directory, self._separator.manifest)
        except Exception as error:
            if os.environ.get("BSMAMBA2_DEBUG") and not isinstance(error, Error):
                raise
            self._record_failure(song, error)
            return None

    def _record_failure(self, song: Path, error: Exception) -> Outcome:
        name = "standard input" if song == STDIN else song
        if isinstance(error, Error) and str(name) in str(error):
            text = str(error)
        elif isinstance(error, Error):
            text = f"{name}: {error}"
        else:
            text = (
                f"{name}: {type(error).__name__}: {error}: this is a bug in bsmamba2, please "
                "report it; set BSMAMBA2_DEBUG=1 for the traceback"
            )
        outcome = Outcome(song, error=text, is_bug=not isinstance(error, Error))
        self.outcomes.append(outcome)
        return outcome

    def _complete(self, plan: FilePlan) -> RecordedStems | None:
        """Returns the stems of a song that an earlier run finished, with its report."""
        stored = plan.record.read()
        return stored if stored and stored.is_complete and not plan.lacks_report else None

    def _rival(self, plan: FilePlan, songs: dict[Path, Path]) -> Path | None:
        """Returns an earlier song whose stems have the same names, ignoring their suffixes."""
        bases = [resolved(plan.directory / name) for name in plan.names if name is not None]
        rivals = [songs[base] for base in bases if base in songs]
        if rivals:
            return rivals[0]
        songs.update(dict.fromkeys(bases, plan.song))
        return None


def _is_same_file(one: Path, other: Path) -> bool:
    """Whether two paths are spellings of one file."""
    try:
        return one.samefile(other)
    except OSError:
        return False


class Clock:
    """Measures the time for one song, and reports its progress with the speed."""

    def __init__(self, report: Callable[[float, float, float], None]) -> None:
        self._report = report
        self._start = time.perf_counter()
        self.song_seconds = 0.0

    def seconds(self) -> float:
        return time.perf_counter() - self._start

    def report(self, done_seconds: float, total_seconds: float) -> None:
        self.song_seconds = total_seconds
        self._report(done_seconds, total_seconds, done_seconds / self.seconds())
