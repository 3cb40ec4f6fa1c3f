"""Fixtures: a network of few bands, exported once in each form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bsmamba2_export import export
from bsmamba2_network import BSMamba2, Config
from support.traces import shared_traces  # noqa: F401 - used by every test that traces

FEW_BANDS = replace(Config.preset("tiny"), bands=(8, 64, 953))
"""The smallest preset with 3 of its 25 bands, because a trace takes its time for each band."""


def few_bands(seed: int) -> BSMamba2:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BSMamba2(FEW_BANDS).eval()


@pytest.fixture(scope="session")
def net() -> BSMamba2:
    return few_bands(seed=0)


@pytest.fixture(scope="session")
def another_net() -> BSMamba2:
    """A network of the same size with other weights."""
    return few_bands(seed=1)


@pytest.fixture(scope="session")
def checkpoint(net: BSMamba2, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "voice.safetensors"
    net.save(path)
    return path


@pytest.fixture(scope="session")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``exported(target, io, streaming)`` returns the path of the model in this form."""
    folder = tmp_path_factory.mktemp("exported")
    paths: dict[tuple[str, str, bool], Path] = {}

    def path_of(target: str = "portable", io: str = "spectrum", streaming: bool = False) -> Path:
        form = target, io, streaming
        if form not in paths:
            path = folder / f"{target}-{io}{'-streaming' if streaming else ''}.onnx"
            export(checkpoint, path, target=target, io=io, streaming=streaming)
            paths[form] = path
        return paths[form]

    return path_of
