"""Shared libraries: which one is opened, and which of its dependencies is missing."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bsmamba2.devices.libraries import missing_library, open_library


@pytest.fixture
def chain(tmp_path: Path) -> tuple[Path, Path]:
    """Two libraries, of which the first needs the second.

    Their names are new in each test, because the loader remembers names.
    """
    if not shutil.which("cc") or sys.platform != "linux":
        pytest.skip("there is no C compiler, or the loader does not name missing libraries")
    first, second = (tmp_path / f"lib{secrets.token_hex(4)}.so" for _ in range(2))
    (tmp_path / "empty.c").touch()
    build = ["cc", "-shared", "-fPIC", "empty.c", "-o"]
    links = ["-L.", "-Wl,--no-as-needed", f"-l:{second.name}", "-Wl,-rpath,$ORIGIN"]
    for command in ([*build, second.name], [*build, first.name, *links]):
        subprocess.run(command, cwd=tmp_path, check=True)
    return first, second


def test_the_first_library_that_exists_is_opened(chain: tuple[Path, Path]) -> None:
    assert open_library("libno-such.so.9", str(chain[0])) is not None
    assert open_library("libno-such.so.9") is None


def test_no_dependency_of_a_complete_library_is_missing(chain: tuple[Path, Path]) -> None:
    assert missing_library(chain[0]) is None


def test_a_missing_dependency_is_named(chain: tuple[Path, Path]) -> None:
    first, second = chain
    second.unlink()
    assert missing_library(first) == second.name


def test_no_dependency_of_a_nonexistent_library_is_missing(tmp_path: Path) -> None:
    assert missing_library(tmp_path / "none.so") is None
