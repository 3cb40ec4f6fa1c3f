"""An ONNX file that asks for gigabytes is refused before it gets them."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from bsmamba2 import ModelError
from bsmamba2.devices.device import CPU
from bsmamba2.engines.memory_limit import VARIABLE, budget_bytes, limited
from bsmamba2.formats.onnx_file import read_onnx
from bsmamba2.models.onnx_model import OnnxModel
from support.fixtures import WriteOnnx
from support.memory_bombs import BOMBS, growing, memory_bomb
from support.models import gain_model

if sys.platform != "linux":
    pytest.skip("only Linux counts what a process allocates", allow_module_level=True)

import resource


@pytest.mark.parametrize("name", BOMBS)
def test_a_model_that_asks_for_gigabytes_is_refused(write_onnx: WriteOnnx, name: str) -> None:
    model, before = (
        OnnxModel(write_onnx(memory_bomb(name))),
        resource.getrlimit(resource.RLIMIT_DATA),
    )
    Path("/proc/self/clear_refs").write_text("5")  # the peak is the present use from now on
    first = peak_bytes()
    with pytest.raises(ModelError, match=r"must be loaded and run in 0\.\d GB of memory"):
        model.chunk_engine(CPU)
    assert peak_bytes() - first < 1 << 30
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_a_model_within_the_limit_is_loaded(write_onnx: WriteOnnx) -> None:
    model = OnnxModel(write_onnx(memory_bomb("Expand at run", 100 << 20)))
    assert model.chunk_engine(CPU).run(np.zeros((2, 400), np.float32)).shape == (1, 2, 400)


@pytest.mark.parametrize("location", ["missing", "x" * 5000])
def test_weights_that_cannot_be_found_are_refused(write_onnx: WriteOnnx, location: str) -> None:
    with pytest.raises(ModelError, match="ONNX Runtime refuses"):
        OnnxModel(write_onnx(gain_model(location=location))).chunk_engine(CPU)


def test_memory_that_grows_with_the_square_of_the_length_is_refused(write_onnx: WriteOnnx) -> None:
    engine = OnnxModel(write_onnx(growing())).chunk_engine(CPU)
    assert engine.run(np.zeros((2, 44_100), np.float32)).shape == (1, 2, 44_100)
    with pytest.raises(ModelError, match=r"must be loaded and run in \d\.\d GB of memory"):
        engine.run(np.zeros((2, 400_000), np.float32))


def test_the_limit_can_be_turned_off(
    write_onnx: WriteOnnx, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "off")
    OnnxModel(write_onnx(memory_bomb("Expand at run", 900 << 20))).chunk_engine(CPU)


def test_limits_in_several_threads_add_up_and_end_together(write_onnx: WriteOnnx) -> None:
    file, before = read_onnx(write_onnx(gain_model())), resource.getrlimit(resource.RLIMIT_DATA)
    entered, leave = threading.Barrier(2, timeout=60), threading.Event()

    def hold() -> None:
        with limited(file, CPU, 0):
            entered.wait()
            leave.wait(60)

    other = threading.Thread(target=hold)
    other.start()
    entered.wait()
    with limited(file, CPU, 0):
        np.ones(int(1.5 * budget_bytes(file, 0)) // 8)
        leave.set()
        other.join()
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def peak_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024
