"""The CUDA kernels, run lane by lane on the CPU, and a mock of NVIDIA's driver."""

from __future__ import annotations

import ctypes
import dataclasses
import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bsmamba2.devices import cuda_memory, nvidia
from bsmamba2.devices.cuda import KINDS, Call
from bsmamba2.devices.nvidia import Card, Driver
from bsmamba2.engines import tensorrt_engine
from bsmamba2.formats.engine_file import BuildKey, EngineFile
from bsmamba2.formats.manifest import Manifest
from kernel.scans import Scan

from .fake_tensorrt import FakeTensorRT
from .memory import Memory

H100_SHARED_BYTES = 228 << 10
L4_SHARED_BYTES = 100 << 10
LANES = Path(__file__).parent / "lanes"
KEY = BuildKey("0" * 64, "tensorrt-rtx", "1.7", ("sm90",), batch=2, frames=101)


def compile_lanes(source: str, output: Path) -> Path:
    """Compiles the kernels for the CPU, with options for their NVIDIA pragmas and type punning."""
    command = ["c++", "-std=c++17", "-O2", "-Wall", "-Wextra", "-Wno-unknown-pragmas"]
    command += ["-fno-strict-aliasing", "-fvisibility=hidden", "-shared", "-fPIC", f"-I{LANES}"]
    done = subprocess.run(
        [*command, "-o", str(output), str(LANES / source)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return output


@pytest.fixture(scope="session")
def lane_library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The kernels on a CPU."""
    return ctypes.CDLL(str(compile_lanes("scan.cpp", tmp_path_factory.mktemp("lanes") / "s.so")))


@pytest.fixture(scope="session")
def lanes(lane_library: ctypes.CDLL) -> Callable[..., Memory]:
    """``lanes(scan, kind, states=True, shared=…, last_lane_first=False)`` runs a scan.

    ``shared`` is the shared memory of a multiprocessor, in bytes.
    """
    library = lane_library
    library.scan_by_lanes.argtypes = [Call, *[ctypes.c_int] * 2, ctypes.c_int64, ctypes.c_int]
    library.scan_by_lanes.restype = None

    def run(
        scan: Scan,
        kind: str = "fp32",
        *,
        states: bool = True,
        shared: int = H100_SHARED_BYTES,
        last_lane_first: bool = False,
    ) -> Memory:
        memory = Memory(scan, kind, states)
        library.scan_by_lanes(memory.call, KINDS[kind], scan.state_size, shared, last_lane_first)
        return memory

    return run


@pytest.fixture(scope="session")
def fake_driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a mock libcuda.so.1, whose GPU is the CPU."""
    folder = tmp_path_factory.mktemp("driver")
    compile_lanes("driver.cpp", folder / "libcuda.so.1")
    return folder


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch, fake_driver: Path) -> None:
    """Installs mocks of a card of compute capability 9.0 and of TensorRT."""
    cards = Driver((Card("NVIDIA H100", (9, 0), 80 << 30),), (13, 0), "580.1")
    monkeypatch.setattr(nvidia, "driver", lambda: cards)
    library = ctypes.CDLL(str(fake_driver / "libcuda.so.1"))
    monkeypatch.setattr(cuda_memory, "open_library", lambda *names: library)
    monkeypatch.setattr(tensorrt_engine, "import_tensorrt", lambda backend: FakeTensorRT)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """``write(data, manifest, **changes of the key)`` writes an engine and its description."""

    def engine(data: bytes = b"engine", manifest: Manifest | None = None, **changes: Any) -> Path:
        path = tmp_path / "voice.engine"
        path.write_bytes(data)
        key = dataclasses.replace(KEY, **changes)
        manifest = manifest or Manifest("voice", target="tensorrt")
        EngineFile(path, manifest, key, hashlib.sha256(data).hexdigest()).write_description()
        return path

    return engine
