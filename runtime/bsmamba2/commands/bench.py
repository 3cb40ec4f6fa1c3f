"""``bsmamba2 bench``: what this machine reaches with each model that is here."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bsmamba2 import installation
from bsmamba2.commands.display import length
from bsmamba2.commands.model_rows import listed_models
from bsmamba2.commands.parameters import ModelName, catalogue_option, device_option
from bsmamba2.commands.speed import SONG_S, measure_alone
from bsmamba2.devices import kernel
from bsmamba2.devices.device import CPU
from bsmamba2.devices.products import DEFAULT_SPEED, SPEEDS, products
from bsmamba2.engines.ort_import import import_onnxruntime
from bsmamba2.errors import Error, for_command_line, one_line
from bsmamba2.separator import Separator

THREADS = "a thread on every physical core"
"""ONNX Runtime's default."""


@click.command(short_help="Measure how fast each model runs on this machine.")
@click.option(
    "-m",
    "--model",
    "models",
    multiple=True,
    type=ModelName(),
    help="Measure this model; can be repeated. Default: every named model that is here.",
)
@device_option
@click.option(
    "--seconds",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="How long to measure in all; a slow model takes longer.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@catalogue_option
def bench(models: tuple[str, ...], device: str, seconds: float, as_json: bool) -> None:
    """Measure each model that is here, at each speed, in a process of its own.

    Every model must first reproduce its check, a second of noise with a known result. Then it runs
    chunks of noise: × real time is how many seconds of a song it separates in a second, and the
    4-minute song includes loading the model. Nothing is downloaded. Other programs that are running
    make the figures worse. Exit status: 2 if a model fails.
    """
    import_onnxruntime()
    named = models or tuple(row.name for row in listed_models() if row.paths)
    cases = [(model, speed) for model in named for speed in speeds(model, device)]
    console = Console(stderr=True)
    rows: list[dict[str, Any]] = []
    with console.status("measuring") as status:
        for model, speed, row in _measure(cases, device, seconds):
            status.update(one_line(f"measuring: {len(rows) + 1} of {len(cases)} done"))
            rows.append({"model": model, "speed": speed} | row)
    about = machine()
    if as_json:
        click.echo(json.dumps(about | {"song_length_seconds": SONG_S, "results": rows}))
    else:
        out = Console(highlight=False, markup=False)
        out.print(table(rows))
        for row in rows:
            if "error" in row:
                click.echo(one_line(f"{row['model']}, {row['speed']}: {row['error']}"))
        click.echo("{processor}; {cores} processors, {threads}; kernel: {kernel}".format(**about))
        click.echo("bsmamba2 {bsmamba2}; ONNX Runtime {onnxruntime}".format(**about))
        if products("fast") == products(DEFAULT_SPEED):
            click.echo("on the CPU fast is as exact: this processor has no faster products")
    if any("error" in row for row in rows):
        click.get_current_context().exit(2)


def speeds(model: str, device: str) -> tuple[str, ...]:
    """Returns the speeds at which a model's products differ; only ``exact`` if it cannot run."""
    try:
        known = {name: Separator(model, device, speed=name, load=False).products for name in SPEEDS}
    except Error:
        return (DEFAULT_SPEED,)
    return tuple(n for n in SPEEDS if n == DEFAULT_SPEED or known[n] != known[DEFAULT_SPEED])


def machine() -> dict[str, Any]:
    """Returns what the figures depend on besides the models."""
    return {
        "processor": CPU.hardware,
        "cores": os.cpu_count(),
        "threads": THREADS,
        "kernel": kernel.instruction_set() or "none, plain operators",
        "bsmamba2": installation.version(),
        "onnxruntime": str(import_onnxruntime().__version__),
    }


def table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Returns the results as a table."""
    found = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    found.add_column("model", overflow="fold")
    found.add_column("device")
    found.add_column("speed")
    found.add_column("products")
    for name in ("× real time", "4-min song", "memory", "check"):
        found.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        start = [Text(one_line(row["model"])), Text(row.get("device", "")), Text(row["speed"])]
        if "error" in row:
            found.add_row(*start, Text("failed", "red"))
            continue
        memory, check = row["memory_bytes"], row["check_db"]
        found.add_row(
            *start,
            Text(row["products"]),
            f"{row['real_time']:.2f}",
            length(row["song_seconds"]),
            "?" if memory is None else f"{memory / 1e9:.2f} GB",
            "has none" if check is None else f"{check:.0f} dB",
        )
    return found


def _measure(
    cases: Sequence[tuple[str, str]], device: str, seconds: float
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Measures every case; each gets an equal part of the time that is left."""
    end = time.monotonic() + seconds
    for done, (model, speed) in enumerate(cases):
        share = max(0.0, end - time.monotonic()) / (len(cases) - done)
        try:
            row = measure_alone(model, device, speed, share)
        except Error as error:
            row = {"error": for_command_line(str(error))}
        yield model, speed, row
