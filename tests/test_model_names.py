"""Every command that takes a model takes the same names and paths, and shells complete them."""

from __future__ import annotations

import click
import pytest

from bsmamba2.cli import entry_points
from bsmamba2.commands.parameters import ModelName

MODELS = {"model", "models", "weights"}
"""What commands call a model."""
NOT_MODELS = {("export", "weights")}
"""A precision."""


def commands() -> list[tuple[str, click.Command]]:
    """All subcommands, those of groups too."""
    found: list[tuple[str, click.Command]] = []
    for name, point in entry_points().items():
        command = point.load()
        inner = command.commands if isinstance(command, click.Group) else {}
        found += [(name, command), *((f"{name} {part}", inner[part]) for part in inner)]
    return found


@pytest.mark.parametrize(("name", "command"), commands(), ids=[name for name, _ in commands()])
def test_a_model_is_a_name_or_a_path(name: str, command: click.Command) -> None:
    for parameter in command.params:
        if parameter.name in MODELS and (name, parameter.name) not in NOT_MODELS:
            assert isinstance(parameter.type, ModelName)


def test_these_commands_take_a_model() -> None:
    taking = {name for name, command in commands() if any(p.name in MODELS for p in command.params)}
    assert taking == {
        "bench",
        "build-engine",
        "evaluate",
        "export",
        "info",
        "library",
        "plugin install",
        "report",
        "separate",
        "serve",
        "train",
        "triton",
        "ui",
    }
