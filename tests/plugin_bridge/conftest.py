"""Engines that replace a network, and audio for them.

Pedalboard's own plugins are the reference in these tests. Only tests that run a real model import
ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bsmamba2.audio.array import Audio
from bsmamba2.devices.device import Device
from bsmamba2_pedalboard import SeparationEffect
from support import vst3_host as host
from support.engines import StubEngine, StubModel


class GainEngine(StubEngine):
    """One stem, the mixture times a factor."""

    def __init__(self, factor: float = 1.0, **changes: Any) -> None:
        super().__init__(lambda chunk: np.float32(factor) * chunk[np.newaxis], **changes)


@pytest.fixture(scope="session")
def engine() -> type[GainEngine]:
    """Creates engines: ``engine(0.5)`` halves the mixture."""
    return GainEngine


@pytest.fixture(scope="session")
def effect() -> Callable[..., SeparationEffect]:
    """Creates effects with separate engines: ``effect(0.5, stem="instrumental")``."""
    return lambda factor=1.0, **options: SeparationEffect(GainEngine(factor), **options)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Opens an engine that halves for any model; returns each opened (model, device), in order."""
    opened: list[tuple[str, str]] = []

    class HalvingModel(StubModel):
        def choose_device(self, requested: str) -> Device:
            opened.append((self.manifest.name, requested))
            return super().choose_device(requested)

    monkeypatch.setattr(
        "bsmamba2.models.loaded_model.open_model",
        lambda model, **_: HalvingModel(GainEngine(0.5, name=str(model))),
    )
    return opened


@pytest.fixture(scope="session")
def noise() -> Callable[..., Audio]:
    """Returns the same float32 noise within ±0.5 for a shape: ``noise(2, 100)``."""

    def make(*shape: int) -> Audio:
        return np.random.default_rng(0).uniform(-0.5, 0.5, shape).astype(np.float32)

    return make


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of a tiny checkpoint with random weights, for ONNX Runtime."""
    pytest.importorskip("onnxruntime")
    from safetensors.numpy import save_file

    from bsmamba2.models.graph import shipped_graphs

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
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The server's folder. Its path is short, as a socket's path must be."""
    path = tmp_path / "s"
    path.mkdir(mode=0o700)
    monkeypatch.setenv("BSMAMBA2_SERVE_DIR", str(path))
    return path


@pytest.fixture
def plugin(folder: Path) -> Iterator[host.Plugin]:
    plugin = host.Plugin(host.bundle())
    yield plugin
    plugin.close()
