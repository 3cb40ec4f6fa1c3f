"""The CUDA kernels, run lane by lane on the CPU; and a driver that stands for one with a GPU."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import pytest

from bsmamba2.cuda import KINDS, Call
from kernel.scans import Scan

from .memory import Memory

LANES = Path(__file__).parent / "lanes"


def compile_lanes(source: str, output: Path) -> Path:
    """Compiles the kernels for the CPU; the pragmas and puns in them are for NVIDIA's compiler."""
    command = ["c++", "-std=c++17", "-O2", "-Wall", "-Wextra", "-Wno-unknown-pragmas"]
    command += ["-fno-strict-aliasing", "-fvisibility=hidden", "-shared", "-fPIC", f"-I{LANES}"]
    done = subprocess.run(
        [*command, "-o", str(output), str(LANES / source)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return output


@pytest.fixture(scope="session")
def lanes(tmp_path_factory):
    """Runs a scan by the kernels: ``lanes(scan, kind, last_lane_first=False)`` gives a Memory."""
    library = ctypes.CDLL(str(compile_lanes("scan.cpp", tmp_path_factory.mktemp("lanes") / "s.so")))
    library.scan_by_lanes.argtypes = [Call, ctypes.c_int, ctypes.c_int, ctypes.c_int]
    library.scan_by_lanes.restype = None

    def run(scan: Scan, kind: str = "fp32", *, states=True, last_lane_first=False) -> Memory:
        memory = Memory(scan, kind, states)
        library.scan_by_lanes(memory.call, KINDS[kind], scan.state_size, last_lane_first)
        return memory

    return run


@pytest.fixture(scope="session")
def fake_driver(tmp_path_factory) -> Path:
    """The folder of a libcuda.so.1 whose GPU is the CPU."""
    folder = tmp_path_factory.mktemp("driver")
    compile_lanes("driver.cpp", folder / "libcuda.so.1")
    return folder
