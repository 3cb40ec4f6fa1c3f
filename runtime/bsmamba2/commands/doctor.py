"""``bsmamba2 doctor``: shows what works on this machine, and how to install the rest."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bsmamba2.commands.diagnosis import ABSENT, BROKEN, WORKS, Finding, examine
from bsmamba2.errors import for_command_line

COLOURS = {WORKS: "green", ABSENT: "yellow", BROKEN: "red"}


@click.command(short_help="Show what works on this machine and how to install the rest.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def doctor(as_json: bool) -> None:
    """Try every part on this machine: devices, kernel, audio files, extras, cache.

    Exit status: 0 if songs can be separated, 2 if something is broken.
    """
    with Console(stderr=True).status("examining"):
        # A backend says what is missing in the words of an error.
        findings = [replace(found, fix=for_command_line(found.fix)) for found in examine()]
    broken = any(finding.state == BROKEN for finding in findings)
    if as_json:
        parts = [dataclasses.asdict(finding) for finding in findings]
        click.echo(json.dumps({"works": not broken, "parts": parts}))
    else:
        Console(highlight=False).print(_table(findings))
    if broken:
        click.get_current_context().exit(2)


def _table(findings: list[Finding]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column()
    table.add_column(overflow="fold")
    for finding in findings:
        text = f"{finding.found}\n→ {finding.fix}" if finding.fix else finding.found
        # No markup: names and paths may contain brackets.
        state = Text(finding.state, COLOURS[finding.state])
        table.add_row(Text(finding.part), state, Text(text))
    return table
