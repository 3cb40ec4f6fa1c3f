"""The glossary of CONTRIBUTING.md holds in every tracked text file."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GLOSSARY = "CONTRIBUTING.md"
SUFFIXES = {".py", ".md", ".cpp", ".h", ".cu", ".toml", ".yml", ".sh", ".lua", ".txt"}


def banned_words() -> list[str]:
    """The right column of the glossary's table of words."""
    table = (ROOT / GLOSSARY).read_text().split("| write | not |")[1]
    return [word for row in table.splitlines() for word in re.findall(r"`([^`]+)`", row)]


def tracked_texts() -> list[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    names = listed.stdout.splitlines() or [str(p.relative_to(ROOT)) for p in ROOT.rglob("*.py")]
    return [name for name in names if Path(name).suffix in SUFFIXES and name != GLOSSARY]


BANNED = re.compile("|".join(rf"\b{re.escape(word)}(?!\w)" for word in banned_words()), re.I)


@pytest.mark.parametrize("name", tracked_texts())
def test_no_banned_word_is_used(name: str) -> None:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    assert [f"{n}: {line}" for n, line in enumerate(lines, 1) if BANNED.search(line)] == []
