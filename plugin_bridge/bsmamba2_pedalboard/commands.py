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
from bsmamba2.models.model import describe
from bsmamba2_pedalboard.server import Server
from bsmamba2_pedalboard.vst3 import plugin_path

FOLDER = Path("~/.vst3")
"""Where DAWs on Linux look for a user's plugins."""

_OPTIONS = (
    click.option("-m", "--model", help="A name, or the path of a model; default: the shipped one."),
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda[:N], …"),
    click.option("--lookahead-ms", type=float, help="Stream with this lookahead, not by chunks."),
    click.option("--headroom-ms", type=float, help="For the model to run in; default: measured."),
)


Command = TypeVar("Command", bound=Callable[..., object])


def _with_options(command: Command) -> Command:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command(short_help="Run the model for the plugin in DAWs.")
@_with_options
@click.option("--idle-exit", type=float, help="End after so many seconds without a plugin.")
@click.option("--background", is_flag=True, help="Return at once, and serve behind.")
def serve(
    model: str | None,
    device: str,
    lookahead_ms: float | None,
    headroom_ms: float | None,
    idle_exit: float | None,
    background: bool,
) -> None:
    """Run one model for all instances of the plugin in this user's DAWs.

    The plugin starts this by itself where 'bsmamba2 plugin install' was told the model.
    """
    if background:
        words = [word for word in sys.argv[1:] if word != "--background"]
        subprocess.Popen(
            [sys.executable, "-m", "bsmamba2", *words],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        return
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    separator = Separator(model, device)
    server = Server(separator, lookahead_ms=lookahead_ms, headroom_ms=headroom_ms)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: server.stop())
    click.echo(
        f"serving {separator.manifest.name} on {separator.device}, "
        f"{server.latency_ms / 1000:g} s behind; stop with Ctrl+C",
        err=True,
    )
    server.run(idle_exit)


@click.group(short_help="Install the plugin for DAWs.")
def plugin() -> None:
    """The VST3 'bsmamba2 Separate' for DAWs."""


@plugin.command(short_help="Put it where DAWs look.")
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
    lookahead_ms: float | None,
    headroom_ms: float | None,
    folder: Path,
) -> None:
    """Copy the VST3 to --folder, and tell it how to start 'bsmamba2 serve' with these options."""
    words = [sys.executable, "-m", "bsmamba2", "serve", "--background", "--idle-exit", "600"]
    if model is not None:
        path = Path(model).expanduser()
        model = str(path.resolve()) if path.exists() else model
        words += ["--model", model]
    describe(model)  # here, since a server that the DAW starts could tell nobody what is wrong
    words += ["--device", device]
    for name, value in (("--lookahead-ms", lookahead_ms), ("--headroom-ms", headroom_ms)):
        if value is not None:
            words += [name, f"{value:g}"]
    source = plugin_path()
    target = folder.expanduser() / source.name
    folder.expanduser().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.expanduser(), prefix=".bsmamba2-") as temporary:
        whole = Path(temporary, source.name)
        shutil.copytree(source, whole)
        resources = whole / "Contents" / "Resources"
        resources.mkdir()
        start = resources / "serve"
        start.write_text("\n".join(words) + "\n")
        start.chmod(0o600)
        if target.exists():
            target.rename(Path(temporary, "old"))
        whole.rename(target)
    click.echo(f"{target}\nlet your DAW look for new plugins; it is called bsmamba2 Separate")


@plugin.command(short_help="Print where it is in this installation.")
def path() -> None:
    """Print the path of the VST3 bundle."""
    click.echo(plugin_path())
