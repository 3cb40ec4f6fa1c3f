"""Types of arguments that several subcommands have, with their shell completion."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from bsmamba2.devices import nvidia
from bsmamba2.devices.device import NAMES
from bsmamba2.devices.products import DEFAULT_SPEED, SPEEDS
from bsmamba2.errors import shown
from bsmamba2.files.wav_reader import STDIN
from bsmamba2.files.wav_writer import STDOUT
from bsmamba2.models import registry
from bsmamba2.models.catalogue import Published
from bsmamba2.pipeline.mix import Mix

if TYPE_CHECKING:
    _Text = click.ParamType[str]
    _Number = click.ParamType[float]
    _Mix = click.ParamType[Mix]
else:  # not generic before click 8.4
    _Text = _Number = _Mix = click.ParamType

MODEL_HELP = (
    "A name from bsmamba2 models, an .onnx, .engine, .ckpt, .pt, .pth, .th or .safetensors file, "
    "or a .json file that combines models."
)
DEVICE_HELP = f"{NAMES}."
SPEED_HELP = (
    "On a CPU: exact gives float32's result; fast is faster on processors with AMX, AVX512-BF16 or "
    "VNNI, and loses some quality."
)


_TIME = re.compile(
    r"(?:(?:([0-9]{1,9}):(?=[0-5]?[0-9]:))?([0-9]{1,9}):(?=[0-5]?[0-9](?:\.|$)))?"
    r"([0-9]{1,9}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})"
)


class SongPath(click.Path):
    """A path. An empty one is refused: it would mean all songs in the current folder."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, *context: Any) -> Any:
        if value == "":
            self.fail("must be a path; got an empty one", *context)
        return super().convert(value, *context)


class SongOrStdin(SongPath):
    """The path of a song, or ``-`` for standard input."""

    def convert(self, value: Any, *context: Any) -> Any:
        return STDIN if value == "-" else super().convert(value, *context)


class OutputPath(SongPath):
    """The path of an output, or ``-`` for standard output."""

    def convert(self, value: Any, *context: Any) -> Any:
        return STDOUT if value == "-" else super().convert(value, *context)


class Seconds(_Number):
    """A time: seconds, m:ss or h:mm:ss, with decimals."""

    name = "time"

    def convert(self, value: Any, *context: Any) -> float:
        if isinstance(value, (int, float)):
            return float(value)
        parts = _TIME.fullmatch(value.strip())
        if parts is None:
            self.fail(
                f"must be seconds or m:ss, such as 90, 1:30 or 1:02:03.5; got {shown(value)}",
                *context,
            )
        hours, minutes, seconds = (float(part or 0) for part in parts.groups())
        return 3600 * hours + 60 * minutes + seconds


class Gains(_Mix):
    """A mix: stems with gains in dB."""

    name = "mix"

    def convert(self, value: Any, *context: Any) -> Mix:
        return value if isinstance(value, Mix) else Mix.parse(value)


class ModelName(_Text):
    """The name or path of a model; shells complete both."""

    name = "model"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return [*_starting(registry.names(), incomplete), CompletionItem(incomplete, type="file")]


class PublishedName(_Text):
    """The name of a published model; shells complete it."""

    name = "name"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        here = registry.shipped()
        return _starting((name for name in registry.names() if name not in here), incomplete)


def completing(
    words: Callable[[Published], Iterable[str]],
) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """Returns a shell completion by words of the published models."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> Any:
        known = {word for model in registry.PUBLISHED for word in words(model)}
        return _starting(sorted(known), incomplete)

    return complete


class DeviceName(_Text):
    """The name of a device; shells complete those of this machine."""

    name = "device"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        driver = nvidia.driver()
        cards = range(len(driver.cards) if driver else 0)
        names = ["auto", "cpu", *(f"{kind}:{n}" for kind in ("cuda", "tensorrt") for n in cards)]
        return _starting(names, incomplete)


def _starting(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _use_catalogue(context: click.Context, option: click.Parameter, value: Path | None) -> None:
    if value is not None and not context.resilient_parsing:
        context.with_resource(registry.using_catalogue(value))


catalogue_option = click.option(
    "--catalogue",
    metavar="FILE",
    type=SongPath(),
    is_eager=True,
    expose_value=False,
    callback=_use_catalogue,
    help="A JSON file with more models. Default: that of BSMAMBA2_CATALOGUE.",
)
"""The option of every command that takes the name of a model."""

config_option = click.option(
    "--config",
    metavar="YAML",
    type=SongPath(),
    help="MSST's yaml of a checkpoint, for what its tensors do not tell.",
)

device_option = click.option(
    "--device", type=DeviceName(), default="auto", show_default=True, help=DEVICE_HELP
)

speed_option = click.option(
    "--speed",
    type=click.Choice(SPEEDS),
    default=DEFAULT_SPEED,
    show_default=True,
    help=SPEED_HELP,
)

start_option = click.option(
    "--start",
    "start_s",
    type=Seconds(),
    default=0.0,
    metavar="TIME",
    help="Skip what is before this time: seconds or m:ss.",
)

duration_option = click.option(
    "--duration",
    "duration_s",
    type=Seconds(),
    metavar="TIME",
    help="Only so much of the song, e.g. for a preview: seconds or m:ss.",
)
