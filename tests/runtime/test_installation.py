"""The suggested install commands, for every way in which this copy can be installed."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bsmamba2 import installation
from bsmamba2.installation import (
    install_command,
    installed_version,
    report,
    upgrade_command,
    version,
)

ROOT = Path(__file__).parents[2]


def install_from(monkeypatch: pytest.MonkeyPatch, origin: dict[str, Any] | None) -> None:
    """Mocks what pip recorded about the origin; None: it recorded nothing."""
    record = None if origin is None else json.dumps(origin)
    requires = metadata.requires("bsmamba2")
    distribution = SimpleNamespace(read_text=lambda name: record, requires=requires)
    monkeypatch.setattr(metadata, "distribution", lambda name: distribution)


def not_installed(name: str) -> None:
    raise metadata.PackageNotFoundError(name)


GONE = {"url": "file:///wheels/bsmamba2-1.0-py3-none-any.whl", "archive_info": {}}


@pytest.mark.parametrize("origin", [None, GONE])
def test_where_the_source_is_unknown_or_gone_the_requirements_of_the_extra_are_named(
    monkeypatch: pytest.MonkeyPatch, origin: dict[str, Any] | None
) -> None:
    install_from(monkeypatch, origin)
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = stated["optional-dependencies"]
    expected = [*extras["network"], *extras["export"][1:]]
    words = shlex.split(install_command("export"))
    assert words[:2] == ["pip", "install"]
    assert [word.replace(" ", "") for word in words[2:]] == expected
    assert install_command("gpu") == f'pip install "{extras["gpu"][0]}"'


@pytest.mark.parametrize("extra", ["", "no-such-extra"])
def test_without_requirements_to_name_the_command_is_for_a_checkout(
    monkeypatch: pytest.MonkeyPatch, extra: str
) -> None:
    install_from(monkeypatch, None)
    target = f'".[{extra}]"' if extra else "."
    assert install_command(extra) == f"pip install {target} (in a checkout of bsmamba2)"
    assert upgrade_command() == "pip install . (in a newer checkout of bsmamba2)"


def test_an_editable_install_stays_editable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install_from(monkeypatch, {"url": tmp_path.as_uri(), "dir_info": {"editable": True}})
    assert install_command("gpu") == f'pip install -e "{tmp_path}[gpu]"'
    assert install_command(force=True).startswith("pip install --force-reinstall --no-deps -e ")


def test_a_folder_is_installed_from_the_folder_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install_from(monkeypatch, {"url": tmp_path.as_uri(), "dir_info": {}})
    assert install_command("gpu") == f'pip install "{tmp_path}[gpu]"'


@pytest.mark.parametrize("folder", ["my songs", "café", "it's", "a$b"])
def test_a_shell_passes_every_path_to_pip_unchanged(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folder: str
) -> None:
    wheel = tmp_path / folder / "bsmamba2-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    wheel.touch()
    install_from(monkeypatch, {"url": wheel.as_uri()})
    words = shlex.split(install_command("gpu"))
    assert words == ["pip", "install", f"{wheel}[gpu]"]
    in_double_quotes = install_command("gpu").startswith('pip install "')
    assert in_double_quotes == ("$" not in folder)  # the shell would replace $b inside them


@pytest.mark.parametrize(
    ("origin", "url"),
    [
        (
            {"url": "https://example.org/bsmamba2.whl", "archive_info": {}},
            "https://example.org/bsmamba2.whl",
        ),
        (
            {"url": "https://example.org/a.git", "vcs_info": {"vcs": "git", "commit_id": "0"}},
            "git+https://example.org/a.git",
        ),
        (
            {
                "url": "https://example.org/a.git",
                "vcs_info": {"vcs": "git", "commit_id": "0", "requested_revision": "v1"},
            },
            "git+https://example.org/a.git@v1",
        ),
    ],
)
def test_a_wheel_or_repository_on_a_server_is_installed_from_its_url(
    monkeypatch: pytest.MonkeyPatch, origin: dict[str, Any], url: str
) -> None:
    install_from(monkeypatch, origin)
    assert install_command("gpu") == f'pip install "bsmamba2[gpu] @ {url}"'


def test_a_checkout_that_is_not_installed_is_installed_editable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metadata, "distribution", not_installed)
    module = ROOT / "runtime" / "bsmamba2" / "installation.py"
    monkeypatch.setattr(installation, "__file__", str(module))
    assert shlex.split(install_command("gpu")) == ["pip", "install", "-e", f"{ROOT}[gpu]"]


def test_a_copy_without_any_record_is_installed_from_a_checkout(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(metadata, "distribution", not_installed)
    monkeypatch.setattr(metadata, "requires", not_installed)
    monkeypatch.setattr(installation, "__file__", str(tmp_path / "a" / "b" / "installation.py"))
    assert install_command("gpu") == 'pip install ".[gpu]" (in a checkout of bsmamba2)'


def test_every_extra_in_a_command_exists() -> None:
    used: set[str] = set()
    for folder in ("runtime", "network", "export", "training", "plugin_bridge", "cluster"):
        for path in (ROOT / folder).rglob("*.py"):
            used |= set(re.findall(r"install_command\([\"']([\w-]+)", path.read_text()))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert used
    assert used <= set(project["optional-dependencies"])


def test_the_version_is_that_of_the_installed_package(monkeypatch: pytest.MonkeyPatch) -> None:
    assert version() == metadata.version("bsmamba2")
    monkeypatch.setattr(metadata, "version", not_installed)
    assert (version(), installed_version("numpy")) == ("0+unknown", None)


def test_a_report_lists_the_packages_that_results_depend_on() -> None:
    lines = report().splitlines()
    assert lines[0] == f"bsmamba2 {version()}"
    assert lines[1].startswith("Python 3.")
    assert f"numpy {metadata.version('numpy')}" in lines
