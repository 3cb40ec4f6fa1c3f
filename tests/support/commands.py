"""Runs the command ``bsmamba2`` in this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result

from bsmamba2 import cli
from bsmamba2.engines.protocols import Engine
from support.engines import StubModel


def run_command(*arguments: object) -> Result:
    """Runs ``bsmamba2`` with these arguments, as text."""
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments])


class StubCommand:
    """Runs ``bsmamba2`` with a stub engine instead of every model.

    ``open_engine`` gets the name of the model, and returns the engine or raises.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, engine: Engine) -> None:
        self.open_engine: Callable[[str | None], Engine] = lambda model: engine

        def open_model(model: str | None, **_: Any) -> StubModel:
            return StubModel(self.open_engine(model))

        monkeypatch.setattr("bsmamba2.models.loaded_model.open_model", open_model)

    def __call__(self, *arguments: object) -> Result:
        return run_command(*arguments)
