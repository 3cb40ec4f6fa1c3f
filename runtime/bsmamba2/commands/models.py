"""``bsmamba2 models``: lists the named models, and downloads them."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from bsmamba2.commands.display import hint_if_stopped
from bsmamba2.commands.model_rows import (
    ModelFilter,
    ModelRow,
    describe_figures,
    listed_models,
    megabytes,
)
from bsmamba2.commands.parameters import PublishedName, catalogue_option, completing
from bsmamba2.engines.ort_import import import_onnxruntime
from bsmamba2.errors import one_line
from bsmamba2.formats.families import TITLES
from bsmamba2.models import registry
from bsmamba2.models.cached_file import CachedFile, choose_sources
from bsmamba2.models.catalogue import Published
from bsmamba2.models.graph import UnshippedSizeError
from bsmamba2.models.open_model import open_model


@click.group(invoke_without_command=True, short_help="List named models, or download one.")
@click.option(
    "--stem",
    metavar="STEM",
    shell_complete=completing(lambda model: model.outputs),
    help="Only models that separate this, such as drums.",
)
@click.option(
    "--purpose",
    metavar="PURPOSE",
    shell_complete=completing(lambda model: [model.purpose]),
    help="Only models for this, such as karaoke.",
)
@click.option("--family", type=click.Choice(tuple(TITLES)), help="Only networks of this kind.")
@click.option(
    "--licence",
    metavar="LICENCE",
    shell_complete=completing(lambda model: [model.licence]),
    help="Only models with this licence, such as MIT.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per model.")
@catalogue_option
@click.pass_context
def models(
    context: click.Context,
    stem: str | None,
    purpose: str | None,
    family: str | None,
    licence: str | None,
    as_json: bool,
) -> None:
    """List the models that -m accepts by name.

    The licence is that of the weights, as their publisher states it; "not checked" means that
    nobody has looked for this list. SDR is published by others, and not comparable between test
    sets.
    """
    if context.invoked_subcommand:
        return
    known = listed_models()
    rows = ModelFilter(stem, purpose, family, licence).choose(known)
    if as_json:
        for row in rows:
            click.echo(json.dumps(row.to_json()))
        return
    if not rows:
        click.echo("no model is all of that: leave an option out", err=True)
        return
    _print_table(rows, stem)
    if not all(row.paths for row in rows):
        click.echo("To download one: bsmamba2 models fetch NAME")


@models.command(short_help="Download and verify a model.")
@click.argument("name", type=PublishedName())
@click.option("--mirror", default=0, metavar="N", help="Download the N-th mirror of the file.")
@catalogue_option
def fetch(name: str, mirror: int) -> None:
    """Download the model NAME into the cache (BSMAMBA2_CACHE), and print its path.

    Licence, size, source and published figures are shown before the download. An interrupted
    download resumes where it stopped. The file is verified by its SHA-256; if none is published,
    that of the first download is kept, and a later file must have it too. Then its checks are
    computed, which every device must reproduce before it is used.
    """
    if path := registry.shipped().get(name):
        click.echo(f"{name} is included: nothing to download", err=True)
        click.echo(path)
        return
    model = registry.find_published(name)
    files = choose_sources(model, mirror)
    import_onnxruntime()  # the checks need it, so fail before the download
    click.echo("\n".join(_announce(model, files)), err=True)
    for number, cached in enumerate(files, 1):
        _fetch(cached, f"{name} {number}/{len(files)}" if len(files) > 1 else name)
        _add_checks(cached)
        click.echo(one_line(cached.path))


def _announce(model: Published, files: Sequence[CachedFile]) -> list[str]:
    """Returns what a user should know before a download."""
    lines = [f"{model.name}: {model.purpose}, {TITLES[model.family]}, {', '.join(model.stems)}"]
    lines += [model.note] if model.note else []
    page = f" ({model.page})" if model.page else ""
    lines.append(f"licence of the weights: {model.licence}{page}")
    lines += [f"published: {describe_figures(figures)}" for figures in model.figures]
    for cached in files:
        source, stems = cached.source, f" for {', '.join(cached.file.stems)}"
        size = "size not stated" if source.size is None else f"{source.size / 1e6:.1f} MB"
        lines.append(f"{size} from {source.url}{stems if len(files) > 1 else ''}")
    more = [len(cached.file.sources) - 1 for cached in files]
    if min(more):
        lines.append(f"mirrors: --mirror 1{f' to {min(more)}' if min(more) > 1 else ''}")
    return lines


def _fetch(cached: CachedFile, title: str) -> None:
    """Downloads a file, and says how it was verified."""
    before = cached.sha256
    console = Console(stderr=True)
    stopped = hint_if_stopped("to continue the download, repeat the command")
    with (
        stopped,
        Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        ) as bar,
    ):
        task = bar.add_task(title, total=cached.source.size)
        cached.fetch(lambda received: bar.update(task, completed=received))
    if cached.source.sha256 is not None:
        click.echo("SHA-256 verified", err=True)
    elif before is not None:
        click.echo("SHA-256 is that of the first download (none is published)", err=True)
    else:
        click.echo(
            f"SHA-256 is not published: pinned to this file's, {cached.sha256}, in {cached.pin}",
            err=True,
        )


def _add_checks(cached: CachedFile) -> None:
    try:
        model = open_model(cached.path)
    except UnshippedSizeError as error:
        click.echo(f"downloaded, but it cannot run yet: {error}", err=True)
        return
    click.echo("computing the checks", err=True)
    with Console(stderr=True).status("running a second of noise through plain operators"):
        model.add_checks()


def _print_table(rows: Sequence[ModelRow], stem: str | None) -> None:
    figures = [row.figure(stem) for row in rows]
    sets = list(dict.fromkeys(figure[1] for figure in figures if figure))
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("name", overflow="fold")
    table.add_column("purpose", overflow="fold")
    table.add_column("MB", justify="right", no_wrap=True)
    table.add_column("licence", overflow="fold")
    table.add_column("state", no_wrap=True)
    table.add_column("SDR", justify="right", no_wrap=True)
    for row, figure in zip(rows, figures, strict=True):
        sdr = f"{figure[0]:.2f} [{sets.index(figure[1]) + 1}]" if figure else ""
        state = "ready" if row.paths else "to fetch"
        licence = "its own" if row.published is None else row.licence
        table.add_row(row.name, row.purpose, megabytes(row.size), licence, state, sdr)
    Console(markup=False, highlight=False).print(table)
    if sets:
        of = f"of {stem}" if stem else "of the first stem or the average"
        click.echo(f"SDR in dB {of}. Compare it within one test set only:")
        notes = "; ".join(f"[{number}] {name}" for number, name in enumerate(sets, 1))
        click.echo(click.wrap_text(notes, 80))
