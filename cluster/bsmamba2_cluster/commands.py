"""``bsmamba2 library``: separates all songs of a bucket or folder, on a cluster or this machine."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from contextlib import redirect_stdout
from typing import Any, get_args

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from bsmamba2.batch.plan import OutputOptions
from bsmamba2.commands.display import hint_if_stopped, length
from bsmamba2.commands.parameters import MODEL_HELP, SPEED_HELP, ModelName, catalogue_option
from bsmamba2.devices.products import DEFAULT_SPEED, SPEEDS
from bsmamba2.errors import one_line
from bsmamba2.files.encoding import Clip
from bsmamba2.files.naming import DEFAULT_TEMPLATE
from bsmamba2_cluster.address import open_storage
from bsmamba2_cluster.estimate import Estimate, estimate
from bsmamba2_cluster.library import Library, separate_library
from bsmamba2_cluster.ray_run import disconnect
from bsmamba2_cluster.run_report import FailureReport, RunSummary, measured_rate
from bsmamba2_cluster.separate_songs import SPOOL_GIB

GIB = 1 << 30
LINE_EVERY_S = 60.0
"""How often progress is printed where there is no terminal."""

_OPTIONS = frozenset(OutputOptions.__dataclass_fields__)


@click.command(short_help="Separate all songs of a bucket or folder, on a cluster.")
@click.argument("source")
@click.option("-o", "--output", "destination", required=True, help="Bucket or folder for stems.")
@click.option("--on", metavar="ADDRESS", help="A Ray cluster: ray://HEAD:10001, or auto on it.")
@click.option("-m", "--model", type=ModelName(), help=f"{MODEL_HELP} Default: the shipped model.")
@catalogue_option
@click.option("--stem", "stems", multiple=True, help="Write only this stem; can be repeated.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or tensorrt.")
@click.option("--workers", type=int, metavar="N", help="Default: as many as there is room for.")
@click.option("--cpus-per-worker", type=float, metavar="N", help="Default: a whole machine.")
@click.option("--gpus-per-worker", type=float, metavar="F", help="0.5: two per card. Default: 1.")
@click.option("--cpu-workers", type=int, default=0, metavar="N", help="More on CPUs, next to GPUs.")
@click.option("--limit", type=int, metavar="N", help="Separate N songs of all sizes, and stop.")
@click.option("--spool-gib", type=float, default=SPOOL_GIB, show_default=True,
              help="Disk per worker for a song and its stems.")  # fmt: skip
@click.option("--speed", type=click.Choice(SPEEDS), default=DEFAULT_SPEED, help=SPEED_HELP)
@click.option("--overlap", type=float, help="Overlap of chunks, a fraction. Default: the model's.")
@click.option("--format", help="flac, wav, aiff ... Default: the song's, or flac for a lossy song.")
@click.option("--subtype", help="pcm_16, pcm_24, float ... Default: the song's.")
@click.option("--bitrate", type=float, metavar="KBITS", help="kbit/s of mp3 or ogg stems.")
@click.option("--clip", type=click.Choice(get_args(Clip)), default="float", show_default=True,
              help="A stem beyond full scale: write 32-bit float, clip, or fail.")  # fmt: skip
@click.option("--template", default=DEFAULT_TEMPLATE, show_default=True,
              help="File names: {name}, {stem}, {model}, {source_ext}; a final .{ext}")  # fmt: skip
@click.option(
    "--overwrite", is_flag=True, help="Replace what DESTINATION has, of other models too."
)
@click.option("--plan", "only_plan", is_flag=True, help="Estimate hours and cost, and stop.")
@click.option("--rate", type=float, metavar="X", help="For the plan: x real time of one worker.")
@click.option("--price", type=float, metavar="P", help="For the plan: of one worker for an hour.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as a JSON object.")
def library(
    source: str,
    destination: str,
    only_plan: bool,
    rate: float | None,
    price: float | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Separate all songs of SOURCE into stems.

    SOURCE and the destination are folders or s3://, gs://, az:// and file:// addresses; the stems
    get the same subfolders. Credentials are read from the environment. Songs that are done are
    skipped, so to continue, repeat the command; several runs may share the work. A song that fails
    does not stop the others: the failures are listed in a report next to the stems, and the exit
    status is 2.
    """
    options["stems"] = options["stems"] or None
    if only_plan:
        _print_plan(_plan(source, destination, rate, price, options), as_json)
        return
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its messages are no help to users
    # Ray prints deaths of its processes to the standard output, which is for the result.
    quiet = redirect_stdout(sys.stderr)
    with hint_if_stopped("to continue, repeat the command"), _Bar() as bar, quiet:
        summary = separate_library(source, destination, watch=bar.show, **options)
        disconnect()
    if as_json:
        click.echo(json.dumps(summary.to_json()))
    else:
        click.echo(describe(summary))
    if summary.failures:
        click.echo(f"the failures are listed in {one_line(summary.failures)}", err=True)
    if summary.failed or summary.set_aside:
        click.get_current_context().exit(2)


def _plan(
    source: str, destination: str, rate: float | None, price: float | None, options: dict[str, Any]
) -> Estimate:
    shared = {name: value for name, value in options.items() if name in _OPTIONS}
    storages = open_storage(source), open_storage(destination)
    planned = Library(*storages, options["model"], shared, options["overwrite"])
    report = FailureReport(planned.destination, "plan")  # which is not written
    listed = planned.songs(report).limited(options["limit"])
    measured = measured_rate(planned.destination)
    workers = options["workers"] or 1
    return estimate(listed, planned.source, measured, workers=workers, rate=rate, price=price)


def _print_plan(plan: Estimate, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(plan.to_json()))
        return
    audio = "length unknown" if plan.audio_hours is None else f"about {plan.audio_hours:,.1f} hours"
    click.echo(f"{plan.songs:,} songs, {plan.bytes / GIB:,.1f} GiB, {audio} of audio")
    if plan.already:
        click.echo(f"{plan.already:,} songs are already done")
    if plan.times_real_time is None:
        click.echo("no rate is known: run with --limit 20 first, or state --rate")
        return
    basis = f"measured on {plan.measured_on:,} songs" if plan.measured_on else "as stated"
    click.echo(f"{plan.times_real_time:,.1f}x real time per worker, {basis}")
    if plan.hours is not None:
        cost = "" if plan.cost is None else f", cost {plan.cost:,.2f}"
        workers = f"{plan.workers:,} worker{'s' * (plan.workers != 1)}"
        click.echo(f"{length(plan.hours * 3600)} (h:m:s) with {workers}{cost}")


def describe(summary: RunSummary) -> str:
    """Returns the progress or the result of a run in one line."""
    finished = summary.done + summary.failed + summary.set_aside
    parts = [f"{finished:,} of {summary.songs:,} songs"]
    if summary.already:
        parts.append(f"{summary.already:,} already done")
    parts.append(f"{summary.audio_s / 3600:,.2f} hours of audio")
    if summary.audio_s:
        parts.append(f"{summary.times_real_time:,.1f}x real time")
    if summary.failed:
        parts.append(f"{summary.failed:,} failed")
    if summary.set_aside:
        parts.append(f"{summary.set_aside:,} set aside")
    if finished < summary.songs and summary.left_s is not None:
        parts.append(f"{length(summary.left_s)} left")
    return "; ".join([*parts, *summary.notes])


class _Bar:
    """Shows progress: a bar on a terminal, otherwise a line a minute."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._is_terminal = console.is_terminal
        self._progress = Progress(
            BarColumn(),
            TextColumn("{task.description}", markup=False),
            console=console,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("starting", total=None)
        self._next_s = time.monotonic() + LINE_EVERY_S

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, summary: RunSummary) -> None:
        text = describe(summary)
        total, done = max(summary.bytes, 1), summary.done_bytes
        self._progress.update(self._task, description=text, total=total, completed=done)
        if not self._is_terminal and time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + LINE_EVERY_S
            click.echo(text, err=True)
