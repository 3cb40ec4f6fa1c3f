"""Engines that stand in for a network, and what goes through them.

Pedalboard's own plugins are the reference here; no ONNX Runtime is imported but where a test says
that it runs a model.
"""

from __future__ import annotations

import numpy as np
import pytest

from bsmamba2_pedalboard import SeparationEffect
from support.engines import StubEngine


class GainEngine(StubEngine):
    """One stem, the mixture times a factor."""

    def __init__(self, factor=1.0, **changes):
        super().__init__(lambda chunk: np.float32(factor) * chunk[np.newaxis], **changes)

    @property
    def runs(self):
        return len(self.lengths)


@pytest.fixture(scope="session")
def engine():
    """``engine(0.5)``: makes a :class:`GainEngine`."""
    return GainEngine


@pytest.fixture(scope="session")
def effect():
    """``effect(0.5, stem="instrumental")``: an effect on an engine of its own."""
    return lambda factor=1.0, **options: SeparationEffect(GainEngine(factor), **options)


@pytest.fixture
def opened(monkeypatch):
    """Lets ``model="half.onnx"`` open an engine that halves; returns what was opened, in order."""
    opened = []

    def open_engine(model, device):
        opened.append((model, device))
        return GainEngine(0.5, name=str(model))

    monkeypatch.setattr("bsmamba2.models.open_engine", open_engine)
    return opened


@pytest.fixture(scope="session")
def noise():
    """``noise(2, 100)``: float32 of that shape within ±0.5, the same every time."""

    def make(*shape):
        return np.random.default_rng(0).uniform(-0.5, 0.5, shape).astype(np.float32)

    return make
