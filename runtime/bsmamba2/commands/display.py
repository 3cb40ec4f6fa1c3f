"""Shows the progress of a batch on a terminal: all songs above, the current song below."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from bsmamba2.errors import Cancelled, one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bsmamba2.batch.plan import FilePlan
    from bsmamba2.formats.manifest import Manifest


def length(seconds: float) -> str:
    """Formats a duration: 3:07:05, or 7:05 below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@contextmanager
def hint_if_stopped(hint: str) -> Iterator[None]:
    """Prints how to continue if the user stops the work.

    Raises:
        Cancelled: the user stopped it.
    """
    try:
        yield
    except (KeyboardInterrupt, Cancelled):
        click.echo(hint, err=True)
        raise Cancelled("stopped by the user") from None


def describe_guesses(guesses: Sequence[str], manifest: Manifest) -> str:
    """Returns the statement of a model's assumed settings; empty if there are none."""
    if not guesses:
        return ""
    values = (f"{name} {setting_value(manifest, name)}" for name in guesses)
    return f"{manifest.name}: assumed {'; '.join(values)}; --config YAML states them"


def setting_value(manifest: Manifest, name: str) -> str:
    """Formats a setting of a model."""
    value = getattr(manifest, name)
    if isinstance(value, tuple):
        return ", ".join(value)
    if name == "chunk":
        return f"{value / manifest.sample_rate:g} s"
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else f"{value}"


class Display:
    """Shows what a :class:`~bsmamba2.batch.batch.Batch` reports; silent without a terminal."""

    def __init__(self) -> None:
        self._console = console = Console(stderr=True)
        self._progress = Progress(
            # No markup: a song's name may be "[red] x".
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            # Otherwise piped output would appear on the terminal.
            redirect_stdout=sys.stdout.isatty(),
            disable=not console.is_terminal,
        )
        self._all: TaskID | None = None
        self._song: TaskID | None = None
        self._before = 0.0
        self._count = self._total = 0

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def print(self, text: str) -> None:
        """Prints a result to standard output."""
        self._print(text, is_result=True)

    def note(self, text: str) -> None:
        """Prints a remark to standard error."""
        self._print(text, is_result=False)

    def _print(self, text: str, *, is_result: bool) -> None:
        # On the terminal of the bars, other output must go through them: they redraw their lines.
        if self._console.is_terminal and (sys.stdout.isatty() or not is_result):
            self._console.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)
        else:
            click.echo(text, err=not is_result)

    def begin(self, plans: Sequence[FilePlan]) -> None:
        """Starts the display for all songs that will be separated."""
        self._total = len(plans)
        if len(plans) > 1:
            seconds = sum(plan.seconds for plan in plans)
            self._all = self._progress.add_task("", total=seconds, speed="")

    def song(self, plan: FilePlan) -> None:
        """Starts the bar of the next song."""
        if self._song is not None:
            self._progress.remove_task(self._song)
        self._count += 1
        if self._all is not None:
            self._progress.update(self._all, description=f"{self._count} of {self._total} songs")
        self._song = self._progress.add_task(one_line(plan.song.name), total=None, speed="")

    def report(self, done_seconds: float, total_seconds: float, speed: float) -> None:
        """Updates the bars."""
        if self._song is not None:
            self._progress.update(
                self._song,
                completed=done_seconds,
                total=total_seconds,
                speed=f"{speed:.1f}x real time",
            )
        if self._all is not None:
            self._progress.update(self._all, completed=self._before + done_seconds)

    def ended(self, plan: FilePlan) -> None:
        """Counts a song as done, whether it succeeded or failed."""
        self._before += plan.seconds
        if self._all is not None:
            self._progress.update(self._all, completed=self._before)
