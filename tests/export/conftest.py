"""Fixtures: a tiny network, exported once in each form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bsmamba2_export import export
from bsmamba2_network import BSMamba2


@pytest.fixture(scope="session")
def tiny() -> BSMamba2:
    return BSMamba2.untrained("tiny")


@pytest.fixture(scope="session")
def checkpoint(tiny: BSMamba2, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "voice.safetensors"
    tiny.save(path)
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
