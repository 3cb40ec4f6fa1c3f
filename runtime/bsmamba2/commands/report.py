"""``bsmamba2 report``: a page to see and hear what a model makes of a song."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from bsmamba2.batch.batch import Clock
from bsmamba2.batch.plan import OutputOptions
from bsmamba2.commands.display import Display
from bsmamba2.commands.parameters import (
    MODEL_HELP,
    ModelName,
    SongPath,
    catalogue_option,
    config_option,
    device_option,
    duration_option,
    speed_option,
    start_option,
)
from bsmamba2.errors import one_line
from bsmamba2.files.excerpt import Excerpt
from bsmamba2.report.song_report import SIZE_MB, require_free
from bsmamba2.separator import Separator


@click.command(short_help="Write a page to see and hear the stems of a song.")
@click.argument("song", type=SongPath())
@click.option("-o", "--output", metavar="FILE", type=SongPath(), help="Default: SONG_report.html.")
@click.option("-m", "--model", type=ModelName(), help=f"{MODEL_HELP} Default: the shipped model.")
@config_option
@catalogue_option
@start_option
@duration_option
@device_option
@speed_option
@click.option(
    "--overlap",
    type=float,
    help="Overlap of neighbouring chunks, a fraction in [0, 1). Default: the model's.",
)
@click.option(
    "--size-mb",
    type=float,
    default=SIZE_MB,
    show_default=True,
    help="Size of the page, in millions of bytes. A larger one has better and longer audio.",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing file.")
def report(
    song: Path,
    output: Path | None,
    model: str | None,
    config: Path | None,
    start_s: float,
    duration_s: float | None,
    device: str,
    speed: str,
    overlap: float | None,
    size_mb: float,
    overwrite: bool,
) -> None:
    """Separate SONG and write one page about it, without the stems' files; print its path.

    The page has spectrograms, levels, players with solo and mute, and figures. It needs no network
    and no other file. 'bsmamba2 separate --report' writes it next to the stems.
    """
    excerpt = Excerpt(start_s, duration_s)
    options = OutputOptions(
        (), overlap, speed=speed, report=True, report_mb=size_mb, excerpt=excerpt
    )
    separator = Separator(model, device, speed=speed, config=config, load=False)
    plan = options.plan(song, None, separator.manifest)
    path = output or plan.report
    assert path is not None
    require_free(path, song, overwrite)
    with Display() as display:
        display.song(plan)
        separator.separate_planned(
            dataclasses.replace(plan, report=path),
            overwrite=overwrite,
            progress=Clock(display.report).report,
        )
        display.print(one_line(path))
