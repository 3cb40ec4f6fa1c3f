"""``bsmamba2 serve`` and ``bsmamba2 plugin``: separation in a DAW."""

from __future__ import annotations

import logging
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import click

from bsmamba2 import Separator
from bsmamba2.commands.model_rows import listed_models
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
from bsmamba2.models.model_file import from_any_folder
from bsmamba2.models.open_model import open_model
from bsmamba2_pedalboard.offered_models import OfferedModels, OtherModel
from bsmamba2_pedalboard.offers import LOOKAHEADS_MS, WHOLE_CHUNKS, offer_of, stems_of
from bsmamba2_pedalboard.python_backend import plugin_path
from bsmamba2_pedalboard.server import (
    OFFERS,
    Server,
    ServerError,
    is_locked,
    is_serving,
    require_headroom,
    server_folder,
)

FOLDER = Path("~/.vst3")
"""Where DAWs on Linux look for a user's plugins."""
RESOURCES = Path("Contents", "Resources")
"""The bundle's folder for the plugin's own files."""

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
@click.option(
    _BACKGROUND, is_flag=True, help="Return when it is ready, and serve in the background."
)
@click.option("--installed", type=click.Path(path_type=Path), hidden=True)
def serve(
    model: str | None,
    device: str,
    speed: str,
    lookahead_ms: float | None,
    headroom_ms: float | None,
    idle_exit: float | None,
    background: bool,
    installed: Path | None,
) -> None:
    """Run the models for all instances of the plugin in this user's DAWs.

    Plugins start with --model and --lookahead-ms, and can choose any other model that is ready in
    'bsmamba2 models'. A plugin that 'bsmamba2 plugin install' installed starts this command by
    itself. In the background it writes to the file 'log' in the server's folder.
    """
    if background:
        words = [word for word in sys.argv[1:] if word != _BACKGROUND]
        start_in_background([sys.executable, "-m", "bsmamba2", *words])
        return
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    separator = Separator(model, device, speed=speed)
    server = Server(
        separator,
        lookahead_ms=lookahead_ms,
        headroom_ms=headroom_ms,
        others=_other_models(device, speed),
        installed=installed,
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: server.stop())
    click.echo(
        f"serving {separator.manifest.name} on {separator.device} ({separator.products}) with a "
        f"latency of {server.latency_ms / 1000:g} s; stop with Ctrl+C",
        err=True,
    )
    server.run(idle_exit)


def start_in_background(command: list[str]) -> None:
    """Starts a server, unless one is running, and waits until it accepts connections.

    Another process may be starting one too, or one may be ending; so this waits for it first.

    Raises:
        ServerError: it could not start; the message is its own.
    """
    folder = server_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    log = folder / "log"
    while not is_serving(folder):
        if is_locked(folder):
            time.sleep(0.05)
            continue
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        while not is_serving(folder) and process.poll() is None:
            time.sleep(0.05)
        if process.poll() == 0:
            return  # it has served, and found nothing to do
        if process.poll() is not None and not is_serving(folder) and not is_locked(folder):
            lines = log.read_text(errors="replace").strip().splitlines()
            raise ServerError(f"the server did not start: {lines[-1] if lines else 'see its log'}")


def _other_models(device: str, speed: str) -> list[OtherModel]:
    """Returns the named models that are ready to use."""
    models = []
    for row in listed_models():
        if not row.paths:
            continue
        published = row.published
        if published is None:
            offer = offer_of(open_model(row.paths[0]).manifest, row.name)
        else:
            outputs = tuple(name for name in (*published.stems, published.residual) if name)
            offer = stems_of(row.name, outputs, published.residual, published.outputs)
        if row.family == "bs_mamba2":
            offer = replace(offer, latency_ms=dict.fromkeys((WHOLE_CHUNKS, *LOOKAHEADS_MS), 0))
        models.append(OtherModel(offer, partial(Separator, row.name, device, speed=speed)))
    return models


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
    """Copy the VST3 to --folder; it will start 'bsmamba2 serve' with the other options.

    The model is loaded and measured, so that the plugin knows its latency before a server runs.
    """
    words = [sys.executable, "-m", "bsmamba2", "serve", _BACKGROUND, "--idle-exit", "600"]
    if model is not None:
        words += ["--model", from_any_folder(model)]
    # A server that a DAW starts does not have the environment of this shell.
    if catalogue := registry.user_catalogue():
        words += ["--catalogue", str(catalogue.resolve())]
    words += ["--device", device, "--speed", speed]
    for name, value in (("--lookahead-ms", lookahead_ms), ("--headroom-ms", headroom_ms)):
        if value is not None:
            words += [name, f"{value:g}"]
    require_headroom(headroom_ms)
    separator = Separator(model, device, speed=speed)
    models = OfferedModels(separator, lookahead_ms, headroom_ms, _other_models(device, speed))
    folder = folder.expanduser()
    installed = folder / plugin_path().name / RESOURCES / OFFERS
    target = install_bundle([*words, "--installed", str(installed)], models.to_text(), folder)
    click.echo(
        f"{one_line(target)}\nlatency {models.default_latency_ms / 1000:g} s with "
        f"{separator.manifest.name}; let your DAW scan for new plugins; it is called bsmamba2 "
        "Separate"
    )


def install_bundle(start_command: list[str], offers: str, folder: Path) -> Path:
    """Copies the VST3 with its offers and the command that starts its server; returns its path.

    An earlier copy is replaced.
    """
    source = plugin_path()
    target = folder / source.name
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".bsmamba2-") as temporary:
        copy = Path(temporary, source.name)
        shutil.copytree(source, copy)
        (copy / RESOURCES).mkdir()
        for name, text in (("serve", "\n".join(start_command) + "\n"), (OFFERS, offers)):
            file = copy / RESOURCES / name
            file.write_text(text, encoding="utf-8")
            file.chmod(0o600)
        if target.exists():
            target.rename(Path(temporary, "old"))
        copy.rename(target)
    return target


@plugin.command(short_help="Print the plugin's path in this installation.")
def path() -> None:
    """Print the path of the VST3 bundle."""
    click.echo(one_line(plugin_path()))
