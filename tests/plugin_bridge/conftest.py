"""Engines that stand in for a network, and what goes through them.

Pedalboard's own plugins are the reference here; no ONNX Runtime is imported but where a test says
that it runs a model.
"""

from __future__ import annotations

import numpy as np
import pytest

from bsmamba2_pedalboard import SeparationEffect
from support import vst3_host as host
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

    def open_engine(model, device, **options):
        opened.append((model, device))
        return GainEngine(0.5, name=str(model))

    monkeypatch.setattr("bsmamba2.models.model.open_engine", open_engine)
    return opened


@pytest.fixture(scope="session")
def noise():
    """``noise(2, 100)``: float32 of that shape within ±0.5, the same every time."""

    def make(*shape):
        return np.random.default_rng(0).uniform(-0.5, 0.5, shape).astype(np.float32)

    return make


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """The path of a checkpoint that any bsmamba2 with an ONNX Runtime can run."""
    pytest.importorskip("onnxruntime")
    from safetensors.numpy import save_file

    from bsmamba2.models.model import shipped_graphs

    graph = next(graph for graph in shipped_graphs() if graph.path.stem == "tiny")
    random = np.random.default_rng(0)
    tensors = {
        name: random.normal(0, 0.1, shape).astype(np.float32)
        for name, shape in graph.manifest.initialisers.items()
    }
    path = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    save_file(tensors, path)
    return path


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where the server is to be; short, as the path of a socket must be."""
    path = tmp_path / "s"
    path.mkdir(mode=0o700)
    monkeypatch.setenv("BSMAMBA2_SERVE_DIR", str(path))
    return path


@pytest.fixture
def plugin(folder):
    plugin = host.Plugin(host.bundle())
    yield plugin
    plugin.close()
