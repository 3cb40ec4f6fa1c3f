"""``bsmamba2 ui``: a page in the browser to separate songs and hear the result."""

from __future__ import annotations

import webbrowser

import click

from bsmamba2.commands.parameters import ModelName, catalogue_option, device_option, speed_option
from bsmamba2.separator import Separator


@click.command(short_help="Open a local page to separate songs in the browser.")
@click.option(
    "-m",
    "--model",
    "models",
    multiple=True,
    type=ModelName(),
    help="Offer this model too, a name or a file; can be repeated. The named models that are here "
    "are always offered.",
)
@catalogue_option
@device_option
@speed_option
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="Default: 7860, or a free one if it is taken.",
)
@click.option("--no-browser", is_flag=True, help="Print the address, and open no browser.")
@click.option(
    "--idle-hours",
    type=click.FloatRange(0, min_open=True),
    default=12,
    show_default=True,
    help="Remove the songs and stems of a tab that was not used for so long.",
)
@click.option(
    "--disk-gb",
    type=click.FloatRange(0, min_open=True),
    default=20,
    show_default=True,
    help="Disk space for the songs and stems of all tabs; at most half of what is free.",
)
def ui(
    models: tuple[str, ...],
    device: str,
    speed: str,
    port: int | None,
    no_browser: bool,
    idle_hours: float,
    disk_gb: float,
) -> None:
    """Open a page in the browser: drop songs, choose a model, listen to the stems, download them.

    Only browsers of this machine can open it, and nothing is sent anywhere. It runs until Ctrl-C.
    Songs and stems are in a temporary folder: those of a tab are removed when it is closed, and the
    folder at the end. An open tab that is not used for --idle-hours loses them too.
    """
    from bsmamba2.ui.server import serve
    from bsmamba2.ui.storage import GB, HOUR_S, Limits

    for model in models:
        Separator(model, device, load=False)  # so that a wrong one is refused here

    def load(model: str, device: str) -> Separator:
        return Separator(model, device, speed=speed, load=False)

    def started(url: str) -> None:
        click.echo(f"{url} (Ctrl-C stops it)")
        if not no_browser:
            webbrowser.open(url)

    limits = Limits(idle_hours * HOUR_S, disk_gb * GB)
    serve(load, models, device, port, started, limits)
