"""Shared libraries: which one is found, and which one is missing of it."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import sys

import pytest

from bsmamba2.devices.libraries import missing_library, open_library


@pytest.fixture
def chain(tmp_path):
    """Two libraries, the first of which needs the second; of new names, since loaders remember."""
    if not shutil.which("cc") or sys.platform != "linux":
        pytest.skip("no C compiler, or a loader that does not tell")
    first, second = (tmp_path / f"lib{secrets.token_hex(4)}.so" for _ in range(2))
    (tmp_path / "empty.c").touch()
    build = ["cc", "-shared", "-fPIC", "empty.c", "-o"]
    links = ["-L.", "-Wl,--no-as-needed", f"-l:{second.name}", "-Wl,-rpath,$ORIGIN"]
    for command in ([*build, second.name], [*build, first.name, *links]):
        subprocess.run(command, cwd=tmp_path, check=True)
    return first, second


def test_the_first_that_is_there_is_opened(chain):
    assert open_library("libno-such.so.9", str(chain[0])) is not None
    assert open_library("libno-such.so.9") is None


def test_a_library_with_all_that_it_needs_misses_nothing(chain):
    assert missing_library(chain[0]) is None


def test_what_a_library_needs_and_is_not_there_is_named(chain):
    first, second = chain
    second.unlink()
    assert missing_library(first) == second.name


def test_a_library_that_is_not_there_itself_misses_nothing(tmp_path):
    assert missing_library(tmp_path / "none.so") is None
