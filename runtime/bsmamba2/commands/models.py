"""``bsmamba2 models``: lists the named models, and downloads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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
from bsmamba2.engines.ort_import import import_onnxruntime
from bsmamba2.errors import one_line
from bsmamba2.models import registry
from bsmamba2.models.open_model import open_model


@click.group(invoke_without_command=True, short_help="List named models, or download one.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per model.")
@click.pass_context
def models(context: click.Context, as_json: bool) -> None:
    """List the models that -m accepts by name."""
    if context.invoked_subcommand:
        return
    rows = [_shipped(name, path) for name, path in registry.shipped().items()]
    rows += [_published(model) for model in registry.PUBLISHED]
    if as_json:
        for row in rows:
            click.echo(json.dumps(row))
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("name", "size", "licence", "state", "about"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        state = "ready" if row["path"] else "not fetched"
        size = f"{row['bytes'] / 1e6:.0f} MB"
        table.add_row(row["name"], size, row["licence"], state, row["about"])
    Console(markup=False, highlight=False).print(table)
    if not all(row["path"] for row in rows):
        click.echo("To download one: bsmamba2 models fetch NAME")


@models.command(short_help="Download and verify a model.")
@click.argument("name")
def fetch(name: str) -> None:
    """Download the model NAME into the cache (BSMAMBA2_CACHE), and print its path.

    An interrupted download resumes where it stopped. The file is verified by its SHA-256. Then its
    checks are computed, which every device must reproduce before it is used.
    """
    if path := registry.shipped().get(name):
        click.echo(f"{name} is included: nothing to download", err=True)
        click.echo(path)
        return
    model = registry.find_published(name)
    import_onnxruntime()  # the checks need it, so fail before the download
    click.echo(
        f"{model.name}: {model.about}\n{model.size / 1e6:.1f} MB from {model.url}\n"
        f"licence of the weights: {model.licence}",
        err=True,
    )
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
        task = bar.add_task(model.name, total=model.size)
        path = model.fetch(lambda received: bar.update(task, completed=received))
    click.echo("SHA-256 verified; computing the checks", err=True)
    with console.status("running a second of noise through plain operators"):
        open_model(path).add_checks()
    click.echo(one_line(path))


def _shipped(name: str, path: Path) -> dict[str, Any]:
    manifest = open_model(path).manifest
    return {
        "name": name,
        "bytes": path.stat().st_size,
        "licence": manifest.licence,
        "about": f"{registry.ABOUT.get(name, ', '.join(manifest.stems))}; included",
        "path": str(path),
    }


def _published(model: registry.Published) -> dict[str, Any]:
    return {
        "name": model.name,
        "bytes": model.size,
        "licence": model.licence,
        "about": model.about,
        "path": str(model.path) if model.is_fetched else None,
        "url": model.url,
        "sha256": model.sha256,
    }
