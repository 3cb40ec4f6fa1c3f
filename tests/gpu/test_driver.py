"""The launches, through a driver whose GPU is the CPU; and what is said where there is no GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest

from bsmamba2.devices import cuda, kernel
from bsmamba2.formats.manifest import Manifest
from bsmamba2.models.model import shipped_graphs
from kernel.scans import model

ROOT = Path(__file__).parents[2]
RUN = """
from bsmamba2 import errors
from bsmamba2.devices import cuda
from bsmamba2.devices.kernel import library
from gpu.memory import Memory, of_model
from kernel.scans import snr_db

opened = cuda.load(library())
for length, state_size, kind in [(70, 64, "bf16"), (40, 128, "fp32"), (0, 64, "fp16")]:
    memory = Memory(of_model(batch=2, length=length, heads=2, state_size=state_size), kind)
    try:
        cuda.scan(opened, memory.call, kind, state_size)
    except errors.DeviceError as error:
        raise SystemExit(str(error))
    assert all(snr_db(w, g) > 40 for w, g in zip(memory.wanted(), memory.outputs()))
"""

pytestmark = pytest.mark.skipif(kernel.library() is None, reason="the kernels are not installed")


@pytest.fixture
def run(tmp_path):
    """Runs three calls in a process of its own; its errors, and what the driver was asked for."""

    def start(driver: Path | None = None, **environment: str) -> tuple[str, list[str]]:
        log = tmp_path / "log"
        known = {k: v for k, v in os.environ.items() if k != "LD_LIBRARY_PATH"}
        known |= {"PYTHONPATH": os.pathsep.join(sys.path), "FAKE_GPU_LOG": str(log), **environment}
        if driver:
            known["LD_LIBRARY_PATH"] = str(driver)
        done = subprocess.run(
            [sys.executable, "-c", RUN], capture_output=True, text=True, env=known, cwd=ROOT
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.stderr.strip(), log.read_text().splitlines() if log.exists() else []

    return start


def test_calls_run_in_order_on_one_workspace_that_grows(run, fake_driver):
    said, log = run(fake_driver)
    launches = [line.removeprefix("launch ") for line in log if line.startswith("launch")]
    variants = ["bf16_n64"] * 3 + ["fp32_n128"] * 3 + ["fp16_n64"] * 2
    steps = ["prepare", "advance", "normalise"] * 3
    assert not said
    assert launches == [f"{s}_{v}" for s, v in zip(steps, variants, strict=False)]
    assert log.count("load machine code") == 1
    assert sum(line.startswith("allocate") for line in log) == 2


@pytest.mark.parametrize(
    ("gpu", "loaded"),
    [("8.0", "machine code"), ("8.7", "machine code"), ("12.1", "machine code"), ("10.0", "PTX")],
)
def test_a_gpu_gets_the_code_of_its_generation_or_ptx(run, fake_driver, gpu, loaded):
    said, log = run(fake_driver, FAKE_GPU=gpu)
    assert (said, log[0]) == ("", f"load {loaded}")


def test_without_a_driver_it_says_so(run):
    said, _ = run()
    assert said == (
        "no NVIDIA driver is to be found (libcuda.so.1): install one, or use the device cpu."
    )


def test_an_old_gpu_is_refused_with_a_way_out(run, fake_driver):
    said, _ = run(fake_driver, FAKE_GPU="7.5")
    assert said.endswith("this one has 7.5: export with --target ort for it.")


def test_a_driver_that_loads_nothing_is_refused(run, fake_driver):
    said, _ = run(fake_driver, FAKE_GPU_OLD="1")
    assert said.endswith("for compute capability 9.0: update the driver.")


def test_a_full_gpu_is_told(run, fake_driver):
    said, _ = run(fake_driver, FAKE_GPU_FULL="1")
    assert said.startswith("allocating the workspace failed")
    assert said.endswith("use smaller batches or chunks.")


@pytest.mark.parametrize("on_cuda", [False, True])
def test_a_session_for_cuda_gets_no_kernel_that_would_take_nodes_to_the_cpu(on_cuda):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if on_cuda:
        options.add_session_config_entry(cuda.SETTING, str(cuda.kernels()))
    options.register_custom_ops_library(str(kernel.library()))
    proto = model(head_dim=64, state_size=64)
    if not on_cuda:
        onnxruntime.InferenceSession(proto, options, providers=["CPUExecutionProvider"])
        return
    with pytest.raises(Exception, match="mamba2_scan"):
        onnxruntime.InferenceSession(proto, options, providers=["CPUExecutionProvider"])


def test_every_shipped_size_has_kernels_and_others_are_known_to_have_none():
    assert all(cuda.has_kernels(graph.manifest) for graph in shipped_graphs())
    assert not cuda.has_kernels(Manifest("other"))
