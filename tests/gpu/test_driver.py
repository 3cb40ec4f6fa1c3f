"""Launches through a mock driver whose GPU is the CPU, and the errors without a usable GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import pytest

from bsmamba2.devices import cuda, kernel
from kernel.scans import model

ROOT = Path(__file__).parents[2]
RUN = """
from bsmamba2 import errors
from bsmamba2.devices import cuda
from bsmamba2.devices.kernel import library
from gpu.memory import Memory, kernel_scan
from kernel.scans import snr_db

opened = cuda.load(library())
for length, state_size, kind in [(70, 64, "bf16"), (40, 128, "fp32"), (0, 128, "fp16")]:
    memory = Memory(kernel_scan(batch=2, length=length, heads=2, state_size=state_size), kind)
    try:
        cuda.scan(opened, memory.call, kind, state_size)
    except errors.DeviceError as error:
        raise SystemExit(str(error))
    assert all(snr_db(e, g) > 40 for e, g in zip(memory.expected(), memory.outputs()))
cuda.release(opened, 0)
cuda.release(opened, 0)
"""

Start = Callable[..., tuple[str, list[str]]]
pytestmark = pytest.mark.skipif(kernel.library() is None, reason="the kernels are not installed")


@pytest.fixture
def run(tmp_path: Path) -> Start:
    """``run(driver, **environment)`` makes three calls in a separate process.

    Returns the process's errors and the log of the mock driver.
    """

    def start(driver: Path | None = None, **environment: str) -> tuple[str, list[str]]:
        log = tmp_path / "log"
        variables = {k: v for k, v in os.environ.items() if k != "LD_LIBRARY_PATH"}
        variables |= {
            "PYTHONPATH": os.pathsep.join(sys.path),
            "FAKE_GPU_LOG": str(log),
            **environment,
        }
        if driver:
            variables["LD_LIBRARY_PATH"] = str(driver)
        done = subprocess.run(
            [sys.executable, "-c", RUN], capture_output=True, text=True, env=variables, cwd=ROOT
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.stderr.strip(), log.read_text().splitlines() if log.exists() else []

    return start


def test_calls_run_in_order_on_one_workspace_that_grows_and_is_released(
    run: Start, fake_driver: Path
) -> None:
    error, log = run(fake_driver)
    launches = [line.removeprefix("launch ") for line in log if line.startswith("launch")]
    variants = ["bf16_n64"] * 3 + ["fp32_n128"] * 3 + ["fp16_n128"] * 2
    steps = ["prepare", "advance", "normalise"] * 3
    assert not error
    assert launches == [f"{s}_{v}" for s, v in zip(steps, variants, strict=False)]
    assert log.count("load machine code") == 1
    assert sum(line.startswith("allocate") for line in log) == log.count("free") == 2


@pytest.mark.parametrize(
    ("gpu", "loaded"),
    [
        ("8.0", "machine code"),
        ("8.7", "machine code"),
        ("9.0", "machine code"),
        ("12.1", "machine code"),
        ("10.0", "PTX"),
        ("11.0", "PTX"),
        ("13.0", "PTX"),
    ],
)
def test_a_gpu_gets_the_machine_code_of_its_generation_or_ptx(
    run: Start, fake_driver: Path, gpu: str, loaded: str
) -> None:
    error, log = run(fake_driver, FAKE_GPU=gpu)
    assert (error, log[0]) == ("", f"load {loaded}")


@pytest.mark.parametrize(
    ("gpu", "variant"),
    [("8.0", "n128"), ("8.6", "n128_short"), ("8.9", "n128_short"), ("12.0", "n128_short")],
)
def test_a_gpu_with_little_shared_memory_scans_shorter_segments(
    run: Start, fake_driver: Path, gpu: str, variant: str
) -> None:
    error, log = run(fake_driver, FAKE_GPU=gpu)
    assert (error, log[-2]) == ("", f"launch advance_fp16_{variant}")


def test_a_missing_driver_is_reported(run: Start) -> None:
    error, _ = run()
    assert error == "there is no NVIDIA driver (libcuda.so.1): install one, or use the device cpu."


def test_an_old_gpu_is_refused_with_an_alternative(run: Start, fake_driver: Path) -> None:
    error, _ = run(fake_driver, FAKE_GPU="7.5")
    assert error.endswith("8.0 or higher; got 7.5: export with --target ort for it.")


def test_a_driver_that_cannot_load_the_kernels_is_reported(run: Start, fake_driver: Path) -> None:
    error, _ = run(fake_driver, FAKE_GPU_OLD="1")
    assert error.endswith("for compute capability 9.0: update the driver.")


def test_a_full_gpu_is_reported_with_a_fix(run: Start, fake_driver: Path) -> None:
    error, _ = run(fake_driver, FAKE_GPU_FULL="1")
    assert error.startswith("allocating the workspace failed")
    assert error.endswith("use smaller batches or chunks.")


@pytest.mark.parametrize("on_cuda", [False, True])
def test_a_session_for_cuda_has_no_kernels_on_the_cpu(on_cuda: bool) -> None:
    """Otherwise ONNX Runtime would assign nodes to the CPU."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if on_cuda:
        options.add_session_config_entry(cuda.SETTING, str(cuda.kernels()))
    options.register_custom_ops_library(str(kernel.library()))
    proto = model({"head_dim": 64, "state_size": 64})
    if not on_cuda:
        onnxruntime.InferenceSession(proto, options, providers=["CPUExecutionProvider"])
        return
    with pytest.raises(Exception, match="mamba2_scan"):
        onnxruntime.InferenceSession(proto, options, providers=["CPUExecutionProvider"])
