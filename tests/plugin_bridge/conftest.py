"""Engines that stand in for a network, and what goes through them.

Pedalboard's own plugins are the reference here; no ONNX Runtime is imported but where a test says
that it runs a model.
"""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest

from bsmamba2 import Manifest
from bsmamba2_pedalboard import SeparationEffect


class GainEngine:
    """One stem, the mixture times a factor; counts its runs."""

    device = "cpu"

    def __init__(self, factor=1.0, **changes):
        sizes = {"name": "stub", "n_fft": 16, "hop": 8, "chunk": 64}
        self.manifest = Manifest(**(sizes | changes))
        self.factor = np.float32(factor)
        self.runs = 0

    def run(self, chunk):
        self.runs += 1
        return self.factor * chunk[np.newaxis]


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

    models = ModuleType("bsmamba2.models")
    models.open_engine = open_engine
    monkeypatch.setitem(sys.modules, "bsmamba2.models", models)
    return opened


@pytest.fixture(scope="session")
def noise():
    """``noise(2, 100)``: float32 of that shape within ±0.5, the same every time."""

    def make(*shape):
        return np.random.default_rng(0).uniform(-0.5, 0.5, shape).astype(np.float32)

    return make
