"""Traces that all processes of one run of the tests share, because one can take half a minute."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
from filelock import FileLock

from bsmamba2_export import trace

Trace = Callable[..., onnx.ModelProto]


def traced_once(make: Trace, folder: Path) -> Trace:
    """Returns a function that traces each size and form once, in the first process that asks."""

    def traced(net: Any, *form: str | bool) -> onnx.ModelProto:
        name = hashlib.sha256(repr((net.config, *form)).encode()).hexdigest()
        path = folder / f"{name}.onnx"
        with FileLock(f"{path}.lock"):
            if not path.exists():
                path.write_bytes(make(net, *form).SerializeToString())
        return onnx.load_model_from_string(path.read_bytes())

    return traced


@pytest.fixture(scope="session", autouse=True)
def shared_traces(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Shares traces between the workers of pytest-xdist, whose folders have one parent."""
    is_shared = trace._trace.__module__ == __name__  # by the fixture of another folder
    if is_shared or "PYTEST_XDIST_WORKER" not in os.environ:
        yield
        return
    folder = tmp_path_factory.getbasetemp().parent / "traces"
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trace, "_trace", traced_once(trace._trace, folder))
        yield
