"""Fixtures for the kernels' library: the installed one, or one that is built here."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bsmamba2.devices import kernel

from . import scans

ROOT = Path(__file__).parents[2]


def build(folder: Path, *definitions: str) -> Path:
    """Builds the native part in the folder, or updates it."""
    for command in (
        ["cmake", "-S", str(ROOT), "-B", str(folder), *definitions],
        ["cmake", "--build", str(folder), "--parallel"],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="session")
def library(request: pytest.FixtureRequest) -> Path:
    """The kernels' library."""
    installed = kernel.library()
    if installed is not None:
        return installed
    if not shutil.which("cmake"):
        pytest.skip("the kernels are not installed, and there is no CMake to build them")
    assert request.config.cache is not None
    folder = build(request.config.cache.mkdir("kernel"))
    return folder / "runtime" / "native" / "libbsmamba2_ort.so"


@pytest.fixture(scope="session")
def run(library: Path) -> scans.Run:
    """``run(scan, threads=2, outputs=…)`` runs a scan with the kernel."""
    return functools.partial(scans.run, library)


@pytest.fixture(scope="session")
def python(library: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """``python(arguments, **environment)`` runs this Python in a separate process."""

    def start(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        variables = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment}
        return subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, env=variables, cwd=ROOT
        )

    return start
