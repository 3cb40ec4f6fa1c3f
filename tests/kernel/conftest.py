"""The kernel's library: the installed one, or one that is built here."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

from bsmamba2.devices import kernel

from . import scans

ROOT = Path(__file__).parents[2]

# A busy machine is slow, not wrong.
settings.register_profile("patient", deadline=None, max_examples=25)
settings.load_profile("patient")


def build(folder: Path, *definitions: str) -> Path:
    """Builds the native part into the folder, or brings it up to date."""
    for command in (
        ["cmake", "-S", str(ROOT), "-B", str(folder), *definitions],
        ["cmake", "--build", str(folder), "--parallel"],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="session")
def library(request):
    installed = kernel.library()
    if installed is None and not shutil.which("cmake"):
        pytest.skip("the kernel is not installed, and there is no CMake to build it")
    if installed is None:
        folder = build(request.config.cache.mkdir("kernel"))
        installed = folder / "runtime" / "native" / "libbsmamba2_ort.so"
    return installed


@pytest.fixture(scope="session")
def run(library):
    """Runs a scan by the kernel: ``run(scan, threads=2, outputs=…)``."""
    return functools.partial(scans.run, library)


@pytest.fixture(scope="session")
def python(library):
    """Runs this Python in a process of its own: ``python(arguments, **environment)``."""

    def start(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        known = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment}
        return subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, env=known, cwd=ROOT
        )

    return start
