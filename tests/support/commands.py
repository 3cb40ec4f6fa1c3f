"""Runs the command ``bsmamba2``, in this process and in others."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result

from bsmamba2 import cli
from bsmamba2.engines.protocols import Engine
from support.engines import StubModel

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
"""The environment of a process that imports what the tests import."""

STUB_PROGRAM = """
import numpy as np
import bsmamba2.models.loaded_model
from bsmamba2 import cli
from support.engines import StubEngine, StubModel
model = StubModel(StubEngine(lambda chunk: chunk[np.newaxis]))
bsmamba2.models.loaded_model.open_model = lambda *_, **__: model
cli.main(prog_name="bsmamba2")
"""
"""A Python program: ``bsmamba2`` with a stub engine instead of every model."""


def run_command(*arguments: object) -> Result:
    """Runs ``bsmamba2`` in this process. The arguments are passed as text."""
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments])


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs Python in a new process, without any of pytest's settings."""
    # Includes the tests' cache folder, which is set after this module is imported.
    environment = ENVIRONMENT | {"BSMAMBA2_CACHE": os.environ["BSMAMBA2_CACHE"]}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=60
    )


class StubCommand:
    """Runs ``bsmamba2`` in this process with a stub engine instead of every model.

    ``open_engine`` gets the name of the model, and returns the engine or raises.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, engine: Engine) -> None:
        self.open_engine: Callable[[str | None], Engine] = lambda model: engine

        def open_model(model: str | None, **_: Any) -> StubModel:
            return StubModel(self.open_engine(model))

        monkeypatch.setattr("bsmamba2.models.loaded_model.open_model", open_model)

    def __call__(self, *arguments: object) -> Result:
        return run_command(*arguments)
