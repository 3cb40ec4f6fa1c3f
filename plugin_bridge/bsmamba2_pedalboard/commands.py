"""``bsmamba2 serve`` and ``bsmamba2 plugin``: separation in a DAW."""

from __future__ import annotations

import logging
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from bsmamba2 import Separator
from bsmamba2.commands.parameters import (
    DEVICE_HELP,
    MODEL_HELP,
    SPEED_HELP,
    DeviceName,
    ModelName,
    catalogue_option,
)
from bsmamba2.devices.products import DEFAULT_SPEED, SPEEDS
from bsmamba2.errors import one_line
from bsmamba2.models import registry
from bsmamba2.models.combined_model import combine
from bsmamba2.models.model_file import from_any_folder
from bsmamba2.models.open_model import open_model
from bsmamba2_pedalboard.python_backend import plugin_path
from bsmamba2_pedalboard.server import Server

FOLDER = Path("~/.vst3")
"""Where DAWs on Linux look for a user's plugins."""

_OPTIONS = (
    click.option(
        "-m", "--model", type=ModelName(), help=f"{MODEL_HELP} Default: the shipped model."
    ),
    catalogue_option,
    click.option(
        "--device", type=DeviceName(), default="auto", show_default=True, help=DEVICE_HELP
    ),
    click.option(
        "--speed",
        type=click.Choice(SPEEDS),
        default=DEFAULT_SPEED,
        show_default=True,
        help=SPEED_HELP,
    ),
    click.option(
        "--lookahead-ms",
        type=float,
        help="Run a streaming model with this lookahead; default: whole chunks.",
    ),
    click.option(
        "--headroom-ms",
        type=float,
        help="Extra latency reserved for inference, in ms; default: measured.",
    ),
)
_BACKGROUND = "--background"


Command = TypeVar("Command", bound=Callable[..., object])


def _with_options(command: Command) -> Command:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command(short_help="Run the model for the plugin in DAWs.")
@_with_options
@click.option("--idle-exit", type=float, help="Exit after this many seconds without a plugin.")
@click.option(_BACKGROUND, is_flag=True, help="Detach and serve in the background.")
def serve(
    model: str | None,
    device: str,
    speed: str,
    lookahead_ms: float | None,
    headroom_ms: float | None,
    idle_exit: float | None,
    background: bool,
) -> None:
    """Run one model for all instances of the plugin in this user's DAWs.

    A plugin that 'bsmamba2 plugin install' installed starts this command by itself.
    """
    if background:
        words = [word for word in sys.argv[1:] if word != _BACKGROUND]
        subprocess.Popen(
            [sys.executable, "-m", "bsmamba2", *words],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        return
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    separator = Separator(model, device, speed=speed)
    server = Server(separator, lookahead_ms=lookahead_ms, headroom_ms=headroom_ms)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: server.stop())
    click.echo(
        f"serving {separator.manifest.name} on {separator.device} ({separator.products}) with a "
        f"latency of {server.latency_ms / 1000:g} s; stop with Ctrl+C",
        err=True,
    )
    server.run(idle_exit)


@click.group(short_help="Install the plugin for DAWs.")
def plugin() -> None:
    """The VST3 'bsmamba2 Separate' for DAWs."""


@plugin.command(short_help="Copy the plugin to a folder where DAWs look.")
@_with_options
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=FOLDER,
    show_default=True,
    help="A folder where the DAW looks for VST3s.",
)
def install(
    model: str | None,
    device: str,
    speed: str,
    lookahead_ms: float | None,
    headroom_ms: float | None,
    folder: Path,
) -> None:
    """Copy the VST3 to --folder; it will start 'bsmamba2 serve' with the other options."""
    words = [sys.executable, "-m", "bsmamba2", "serve", _BACKGROUND, "--idle-exit", "600"]
    if model is not None:
        words += ["--model", from_any_folder(model)]
    # A server that a DAW starts does not have the environment of this shell.
    if catalogue := registry.user_catalogue():
        words += ["--catalogue", str(catalogue.resolve())]
    combine(model, open_model)  # now, because a server that the DAW starts cannot show an error
    words += ["--device", device, "--speed", speed]
    for name, value in (("--lookahead-ms", lookahead_ms), ("--headroom-ms", headroom_ms)):
        if value is not None:
            words += [name, f"{value:g}"]
    target = _install(words, folder.expanduser())
    click.echo(
        f"{one_line(target)}\nlet your DAW scan for new plugins; it is called bsmamba2 Separate"
    )


def _install(start_command: list[str], folder: Path) -> Path:
    """Copies the bundle with the command that starts its server; replaces an earlier copy."""
    source = plugin_path()
    target = folder / source.name
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".bsmamba2-") as temporary:
        copy = Path(temporary, source.name)
        shutil.copytree(source, copy)
        resources = copy / "Contents" / "Resources"
        resources.mkdir()
        start = resources / "serve"
        start.write_text("\n".join(start_command) + "\n")
        start.chmod(0o600)
        if target.exists():
            target.rename(Path(temporary, "old"))
        copy.rename(target)
    return target


@plugin.command(short_help="Print the plugin's path in this installation.")
def path() -> None:
    """Print the path of the VST3 bundle."""
    click.echo(one_line(plugin_path()))
