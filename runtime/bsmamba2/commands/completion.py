"""``bsmamba2 completion``: prints the completion script for a shell."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

VARIABLE = "_BSMAMBA2_COMPLETE"
"""The environment variable through which the shell asks for completions."""


@click.command(short_help="Print the completion script for bash, zsh or fish.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that completes commands, options, models and devices in SHELL.

    \b
    bash: bsmamba2 completion bash > ~/.local/share/bash-completion/completions/bsmamba2
    zsh:  bsmamba2 completion zsh > "${fpath[1]}/_bsmamba2"
    fish: bsmamba2 completion fish > ~/.config/fish/completions/bsmamba2.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None  # click has all three
    click.echo(kind(context.find_root().command, {}, "bsmamba2", VARIABLE).source())
