"""docs/architecture.md against the code: packages, modules, sizes and imports."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
RUNTIME = ROOT / "runtime/bsmamba2"
LAYERS = ["bsmamba2", "bsmamba2_network", "bsmamba2_export", "bsmamba2_training"]
LAYERS += ["bsmamba2_pedalboard", "bsmamba2_cluster"]
MAX_LINES = 400
SOURCES = {".py", ".cpp", ".h", ".cu"}


def documented_modules() -> dict[str, set[str]]:
    """Returns the modules of each package that the page lists."""
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| (.+) \|$", PAGE, re.MULTILINE)
    return {package: set(re.findall(r"`(\w+)`", modules)) for package, modules in rows}


def modules(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.py")} - {"__init__"}


def test_the_page_lists_every_module_of_every_package() -> None:
    packages = {path.parent.name: modules(path.parent) for path in RUNTIME.glob("*/__init__.py")}
    assert {name: documented_modules()[name] for name in packages} == packages


def test_the_page_names_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = [re.split(r"[<>=\[]", line)[0] for line in project["dependencies"]]
    assert [name for name in names if name not in PAGE] == []


@pytest.mark.parametrize("path", re.findall(r"`((?:[a-z_]+/)+[a-z_0-9]*\.py)`", PAGE))
def test_a_path_on_the_page_exists(path: str) -> None:
    assert (ROOT / path).exists() or (RUNTIME / path).exists()


def test_there_are_no_circular_imports() -> None:
    graph = grimp.build_graph(*LAYERS)
    circles = [
        (module, imported)
        for module in graph.modules
        for imported in graph.find_modules_directly_imported_by(module)
        if module < imported and graph.find_shortest_chain(imported, module)
    ]
    assert circles == []


def test_no_source_file_is_longer_than_its_limit() -> None:
    folders = (ROOT / name for name in ("runtime", "network", "export", "training"))
    others = ROOT / "plugin_bridge", ROOT / "cluster"
    files = [path for folder in (*folders, *others) for path in folder.rglob("*.*")]
    lines = {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8").count("\n")
        for path in files
        if path.suffix in SOURCES
    }
    assert {name: count for name, count in lines.items() if count > MAX_LINES} == {}


def test_every_runtime_module_has_a_test_file_of_the_same_name() -> None:
    tests = {path.stem for path in (ROOT / "tests").rglob("test_*.py")}
    missing = [
        str(path.relative_to(RUNTIME))
        for path in RUNTIME.rglob("*.py")
        if not path.stem.startswith("__") and f"test_{path.stem}" not in tests
    ]
    assert missing == []
