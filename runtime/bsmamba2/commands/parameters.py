"""Types of arguments that several subcommands have, with their shell completion."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from bsmamba2.devices import nvidia
from bsmamba2.devices.device import NAMES
from bsmamba2.models import registry

if TYPE_CHECKING:
    _Text = click.ParamType[str]
else:  # not generic before click 8.4
    _Text = click.ParamType

MODEL_HELP = "A name from bsmamba2 models, or an .onnx, .engine, .ckpt or .safetensors file."
DEVICE_HELP = f"{NAMES}."


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
        names = registry.names()
        found = [CompletionItem(name) for name in names if name.startswith(incomplete)]
        return [*found, CompletionItem(incomplete, type="file")]


class DeviceName(_Text):
    """The name of a device; shells complete those of this machine."""

    name = "device"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        driver = nvidia.driver()
        cards = range(len(driver.cards) if driver else 0)
        names = ["auto", "cpu", *(f"{kind}:{n}" for kind in ("cuda", "tensorrt") for n in cards)]
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]
