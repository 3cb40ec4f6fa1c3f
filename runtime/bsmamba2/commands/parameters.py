"""Types of arguments that several subcommands have, with their shell completion."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from bsmamba2.devices import nvidia
from bsmamba2.devices.device import NAMES
from bsmamba2.models import registry
from bsmamba2.models.catalogue import Published

if TYPE_CHECKING:
    _Text = click.ParamType[str]
else:  # not generic before click 8.4
    _Text = click.ParamType

MODEL_HELP = (
    "A name from bsmamba2 models, an .onnx, .engine, .ckpt, .pt, .pth, .th or .safetensors file, "
    "or a .json file that combines models."
)
DEVICE_HELP = f"{NAMES}."
SPEED_HELP = (
    "On a CPU: exact gives float32's result; fast is faster on processors with AMX, AVX512-BF16 or "
    "VNNI, and loses some quality."
)


class SongPath(click.Path):
    """A path. An empty one is refused: it would mean all songs in the current folder."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, *context: Any) -> Any:
        if value == "":
            self.fail("must be a path; got an empty one", *context)
        return super().convert(value, *context)


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
