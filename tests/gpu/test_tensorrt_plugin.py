"""The scan as a TensorRT plugin: mocks of TensorRT and the card, kernels run lane by lane."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bsmamba2.devices import kernel
from bsmamba2.engines import tensorrt_plugin
from bsmamba2.errors import DeviceError

ROOT = Path(__file__).parents[2]
RUN = """
from gpu import tensorrt_stand_in
from gpu.memory import PARAMETERS, Memory, kernel_scan
from kernel.scans import snr_db
from bsmamba2.engines import tensorrt_plugin

plugin = tensorrt_stand_in.install()
tensorrt_plugin.register()
tensorrt_plugin.register()
types = tensorrt_stand_in.DataType
for dtype, kind in ((types.FLOAT, "fp32"), (types.HALF, "fp16"), (types.BF16, "bf16")):
    for reverse in (0, 1):
        scan = kernel_scan(batch=2, length=40, heads=2, state_size=64, reverse=reverse)
        memory = Memory(scan, kind, states=False)
        shape = plugin.call(
            [tuple(memory.tokens.shape), *(scan[name].shape for name in PARAMETERS)],
            [memory.tokens.data_ptr(), *(scan[name].ctypes.data for name in PARAMETERS)],
            dtype, memory.y.data_ptr(),
            head_dim=64, state_size=64, reverse=reverse, epsilon=scan.epsilon,
        )
        assert tuple(shape) == tuple(memory.y.shape)
        assert snr_db(memory.expected()[0], memory.outputs()[0]) > 40
"""


@pytest.mark.skipif(kernel.library() is None, reason="the kernels are not installed")
def test_the_plugin_runs_the_kernels(fake_driver: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    variables = os.environ | {
        "PYTHONPATH": os.pathsep.join(sys.path),
        "LD_LIBRARY_PATH": str(fake_driver),
        "FAKE_GPU_LOG": str(log),
        "FAKE_GPU": "10.0",  # this runs the PTX
    }
    done = subprocess.run(
        [sys.executable, "-c", RUN], capture_output=True, text=True, env=variables, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert log.read_text().splitlines()[0] == "load PTX"


def test_a_tensorrt_without_plugins_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    tensorrt_plugin.register.cache_clear()
    with pytest.raises(DeviceError, match="has no plugins in Python .*: build the engine without"):
        tensorrt_plugin.register()
