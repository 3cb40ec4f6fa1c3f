"""A command line with a stub engine, and an album for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.albums import write_album
from support.commands import StubCommand
from support.engines import StubEngine, Stubs
from support.fixtures import Noise


@pytest.fixture
def engine(stub: Stubs) -> StubEngine:
    return stub.lower_half_band()


@pytest.fixture
def run(engine: StubEngine, monkeypatch: pytest.MonkeyPatch) -> StubCommand:
    return StubCommand(monkeypatch, engine)


@pytest.fixture
def album(tmp_path: Path, noise: Noise) -> Path:
    return write_album(tmp_path / "album", noise)
