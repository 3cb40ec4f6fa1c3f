"""``bsmamba2 man``: writes manual pages from the help of the commands."""

from __future__ import annotations

from pathlib import Path

import click

from bsmamba2.errors import MissingExtra, one_line
from bsmamba2.installation import version


@click.command(short_help="Write manual pages for man.")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.pass_context
def man(context: click.Context, directory: Path) -> None:
    """Write bsmamba2.1, bsmamba2-separate.1 and so on into DIRECTORY.

    For man to find them: bsmamba2 man ~/.local/share/man/man1
    """
    try:
        from click_man.core import write_man_pages
    except ImportError:
        raise MissingExtra(
            "man needs click-man, which is not installed; run: pip install click-man"
        ) from None
    group = context.find_root().command
    assert isinstance(group, click.Group)
    names = group.list_commands(context)
    loaded = {name: group.get_command(context, name) for name in names}
    whole = click.Group("bsmamba2", {k: v for k, v in loaded.items() if v}, help=group.help)
    directory.mkdir(parents=True, exist_ok=True)
    write_man_pages("bsmamba2", whole, version=version(), target_dir=str(directory))
    click.echo(one_line(directory))
