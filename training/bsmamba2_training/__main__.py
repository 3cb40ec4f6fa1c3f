"""``python -m bsmamba2_training``: the three commands, from a checkout that is not installed."""

from __future__ import annotations

import click

from bsmamba2.cli import Commands
from bsmamba2_training.commands import dataset, evaluate, train

COMMANDS = {"dataset": dataset, "evaluate": evaluate, "train": train}


class _TrainingCommands(Commands):
    """The commands above, with errors printed as ``bsmamba2`` prints them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return COMMANDS.get(cmd_name)


@click.command(cls=_TrainingCommands)
def main() -> None:
    """Train and evaluate BSMamba2."""


if __name__ == "__main__":
    main()
