"""The install lines on the pages work: in a checkout, and without CUDA where there is no GPU."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from bsmamba2.installation import install_command

ROOT = Path(__file__).parents[2]
SUFFIXES = {".md", ".py", ".sh", ".lua", ".toml", ".yml"}
SKIPPED = {".venv", ".git", "build", "site", "stems"}
TEXTS = [
    path
    for path in sorted(ROOT.rglob("*"))
    if path.suffix in SUFFIXES
    and SKIPPED.isdisjoint(path.relative_to(ROOT).parts)
    and path != Path(__file__)
]
CPU_TORCH = "pip install torch --index-url https://download.pytorch.org/whl/cpu"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
ON_AN_INDEX = re.compile(r"""pip install (?:-\S+ )*["']?bsmamba2\b(?!\S* @)""")
INSTALLED = re.compile(r'pip install "\.\[([\w,-]+)\]"')


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def needs_torch(extra: str) -> bool:
    return any(
        re.match(r"torch\b", line)
        or any(map(needs_torch, re.findall(r"[\w-]+", line.partition("bsmamba2[")[2])))
        for line in EXTRAS[extra]
    )


def test_no_text_installs_the_package_from_an_index_where_it_is_not() -> None:
    found = [
        f"{name(path)}: {line}"
        for path in TEXTS
        for line in path.read_text(encoding="utf-8").splitlines()
        if ON_AN_INDEX.search(line)
    ]
    assert found == []
    assert ON_AN_INDEX.search('pip install "bsmamba2[cpu]"')
    assert ON_AN_INDEX.search("pip install -U bsmamba2")


@pytest.mark.parametrize("extra", sorted(EXTRAS))
def test_no_hint_of_the_program_does_so_either(extra: str) -> None:
    assert not ON_AN_INDEX.search(install_command(extra))


@pytest.mark.parametrize("path", [p for p in TEXTS if p.suffix == ".md"], ids=name)
def test_a_page_that_installs_pytorch_says_how_to_get_it_without_cuda(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    extras = {extra for line in INSTALLED.findall(text) for extra in line.split(",")}
    assert extras <= EXTRAS.keys()
    if any(map(needs_torch, extras - {"mamba"})):  # whose kernels are for CUDA
        assert CPU_TORCH in text


def test_the_extras_with_pytorch_are_known() -> None:
    assert {"network", "export", "training"} <= {e for e in EXTRAS if needs_torch(e)}
    assert not needs_torch("cpu")
