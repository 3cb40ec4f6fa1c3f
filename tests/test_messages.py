"""Messages name arguments as their reader gives them: in Python, or as options of a command."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from bsmamba2.errors import for_command_line

ROOT = Path(__file__).parents[1]
LAYERS = ("runtime", "network", "export", "training", "plugin_bridge", "cluster")
FILES = [path for layer in LAYERS for path in sorted((ROOT / layer).glob("bsmamba2*/**/*.py"))]
COMMANDS = [path for path in FILES if "\nimport click" in path.read_text(encoding="utf-8")]
"""Modules of the command line, whose messages nobody else sees."""
LIBRARY = [path for path in FILES if path not in COMMANDS]

OPTION = re.compile(r"(?<![\w-])--[a-z]|\(-[a-z]\)")
OTHER_PROGRAMS = re.compile(
    r"--force-reinstall|--no-deps|--only-binary|--quiet"  # pip and git
    r"|--depth|--filter|--name-only"  # git
    r"|var\(--[a-z0-9-]+\)"  # CSS
)
ARGUMENT = re.compile(r"\b[a-z_]+=(?:True|'\w+')")


def texts(path: Path) -> Iterator[str]:
    """The string literals of a module, without its docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in docstrings:
            yield node.value if isinstance(node.value, str) else ""


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", LIBRARY, ids=name)
def test_the_library_names_no_option_of_a_command(path: Path) -> None:
    found = [text for text in texts(path) if OPTION.search(OTHER_PROGRAMS.sub("", text))]
    assert found == []


@pytest.mark.parametrize("path", COMMANDS, ids=name)
def test_a_command_names_no_argument_of_python(path: Path) -> None:
    assert [text for text in texts(path) if ARGUMENT.search(text)] == []


@pytest.mark.parametrize("path", [p for p in LIBRARY if "plugin_bridge" not in p.parts], ids=name)
def test_every_argument_in_a_message_of_the_library_is_printed_as_an_option(path: Path) -> None:
    given = [text for text in texts(path) if ARGUMENT.search(text)]
    assert [text for text in given if ARGUMENT.search(for_command_line(text))] == []
