"""A tiny network, exported once in every form."""

from __future__ import annotations

import pytest

from bsmamba2_export import export
from bsmamba2_network import BSMamba2


@pytest.fixture(scope="session")
def tiny():
    return BSMamba2.untrained("tiny")


@pytest.fixture(scope="session")
def checkpoint(tiny, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "voice.safetensors"
    tiny.save(path)
    return path


@pytest.fixture(scope="session")
def exported(checkpoint, tmp_path_factory):
    """``exported(target, io, streaming)``: the path of such a model."""
    folder, made = tmp_path_factory.mktemp("exported"), {}

    def make(target="portable", io="spectrum", streaming=False):
        form = target, io, streaming
        if form not in made:
            path = folder / f"{target}-{io}{'-streaming' if streaming else ''}.onnx"
            export(checkpoint, path, target=target, io=io, streaming=streaming)
            made[form] = path
        return made[form]

    return make
