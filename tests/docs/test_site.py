"""The documentation site: it builds without a warning, is complete, and its links resolve."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ["bsmamba2", "bsmamba2_pedalboard", "bsmamba2_network", "bsmamba2_export"]
PACKAGES.append("bsmamba2_cluster")

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("zensical") is None, reason='needs pip install ".[docs]"'
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built in a copy of the sources, because the builder writes into its folder."""
    copy = tmp_path_factory.mktemp("checkout")
    skip = shutil.ignore_patterns(".venv", ".git", "site", "build", "__pycache__", "*.so", "*.onnx")
    shutil.copytree(ROOT, copy, ignore=skip, dirs_exist_ok=True)
    built = subprocess.run(
        ["bash", "docs/build.sh"],
        cwd=copy,
        env=os.environ | {"PYTHON": sys.executable},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return copy / "site"


def page(site: Path, name: str) -> str:
    return (site / name / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_has_an_entry(package: str, site: Path) -> None:
    names = importlib.import_module(package).__all__
    entries = page(site, f"api/{package}")
    assert [name for name in names if f'id="{package}.{name}"' not in entries] == []


def test_every_command_has_an_entry(site: Path) -> None:
    from bsmamba2.cli import entry_points

    commands = page(site, "cli")
    for command in entry_points():
        assert f"bsmamba2 {command} [" in commands, command


def test_docstrings_show_no_sphinx_roles(site: Path) -> None:
    for api in site.glob("api/*/index.html"):
        assert re.findall(r":(?:class|func|meth|attr|data|mod):", api.read_text()) == []


def test_every_link_inside_the_site_resolves(site: Path) -> None:
    broken = []
    for file in site.rglob("*.html"):
        if file.name == "404.html":  # its links are relative to wherever it is served
            continue
        for target in re.findall(r'<a [^>]*href="([^"]+)"', file.read_text(encoding="utf-8")):
            if target.startswith(("https://", "http://", "mailto:")):
                continue
            path, _, anchor = target.partition("#")
            linked = (file.parent / path).resolve() if path else file
            linked = linked / "index.html" if linked.is_dir() else linked
            if not linked.is_file():
                broken.append((file.parent.name, target))
            elif anchor and not anchor.startswith("__"):
                ids = f'id="{anchor}"', f'name="{anchor}"'
                if not any(text in linked.read_text(encoding="utf-8") for text in ids):
                    broken.append((file.parent.name, target))
    assert broken == []


def test_links_into_the_repository_lead_to_files(site: Path) -> None:
    prefix = "https://github.com/bsmamba2/bsmamba2/blob/main/"
    for file in site.rglob("*.html"):
        for target in re.findall(rf'href="{prefix}([^"#]+)', file.read_text(encoding="utf-8")):
            assert (ROOT / target).exists(), (file.parent.name, target)
