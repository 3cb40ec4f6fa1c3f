"""What ``-o`` names: a folder for stems, the one file of a mix or a stem, or standard output."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from bsmamba2.batch.plan import SUFFIXES
from bsmamba2.errors import shown
from bsmamba2.files.encoding import FORMATS
from bsmamba2.files.naming import DEFAULT_TEMPLATE
from bsmamba2.files.wav_reader import STDIN
from bsmamba2.files.wav_writer import STDOUT, standard_output


def destination(
    output: Path | None, songs: Sequence[Path], is_one_file: bool, options: dict[str, Any]
) -> tuple[Path | None, dict[str, Any]]:
    """Returns the folder for the files, and the options of the output that ``-o`` implies.

    Args:
        output: the value of ``-o``; a file if it ends with the suffix of an audio file and is no
            existing folder.
        songs: the songs and folders of songs.
        is_one_file: whether each song becomes one file: a mix, or one stem.
        options: the other options, ``format``, ``subtype`` and ``template`` among them.

    Raises:
        UsageError: the options contradict each other, or standard output is a terminal.
    """
    if STDIN in songs and len(songs) > 1:
        raise click.UsageError("- must be the only song: standard input is one song")
    if output == STDOUT:
        if len(songs) > 1 or songs[0].is_dir():
            raise click.UsageError("-o - takes one song: choose a folder with -o DIR for several")
        standard_output()
        return None, options | {"to_stdout": True}
    suffix = "" if output is None else output.suffix.lower()
    if output is None or suffix not in SUFFIXES | set(FORMATS) or output.is_dir():
        return output, options
    given = shown(str(output))
    if not is_one_file:
        raise click.UsageError(
            f"-o must be a folder to write several stems; got {given}: to write one file, choose "
            "one --stem or a --mix"
        )
    if len(songs) > 1 or songs[0].is_dir():
        raise click.UsageError(
            f"-o must be a folder for several songs; got {given}: --template names the files in it"
        )
    if suffix not in FORMATS:
        raise click.UsageError(f"-o must end with one of {', '.join(FORMATS)}; got {given}")
    if options["template"] != DEFAULT_TEMPLATE:
        raise click.UsageError(f"-o must be a folder with --template; got {given}")
    format, subtype = FORMATS[suffix]
    if options["format"] and options["format"].lower() != format:
        raise click.UsageError(
            f"-o and --format must agree; got {given} and {options['format']}: leave --format out"
        )
    name = output.stem.replace("{", "{{").replace("}", "}}")
    implied = {"template": f"{name}.{{ext}}", "format": format, "suffix": output.suffix}
    return output.parent, options | implied | {"subtype": options["subtype"] or subtype}
