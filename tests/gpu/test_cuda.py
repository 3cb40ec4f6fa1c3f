"""The runtime's calls of the CUDA kernels: sizes, versions, and refused arguments."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from bsmamba2.devices import cuda, kernel
from bsmamba2.errors import DeviceError
from bsmamba2.formats.manifest import Manifest
from bsmamba2.models.graph import shipped_graphs


def test_every_shipped_size_has_kernels_and_unknown_ones_have_none() -> None:
    assert all(cuda.has_kernels(graph.manifest) for graph in shipped_graphs())
    assert not cuda.has_kernels(Manifest("other"))


def test_the_kernels_are_identified_by_the_hash_of_their_source() -> None:
    assert len(cuda.kernels_version()) == 64
    assert (cuda.kernels() / "kernels.json").is_file()


@pytest.mark.skipif(kernel.library() is None, reason="the kernels are not installed")
def test_the_library_is_loaded_with_the_types_of_its_arguments() -> None:
    path = kernel.library()
    assert path is not None
    library = cuda.load(path)
    assert library.bsmamba2_cuda_scan.argtypes[0] is ctypes.POINTER(cuda.Call)


@pytest.mark.parametrize(
    ("kind", "state_size", "message"),
    [
        ("fp64", 64, "kind must be one of fp32, fp16, bf16; got 'fp64'"),
        ("fp32", 32, r"state_size must be one of \(64, 128\); got 32"),
    ],
)
def test_a_call_without_a_kernel_is_refused(kind: str, state_size: int, message: str) -> None:
    library: Any = None  # never called
    with pytest.raises(DeviceError, match=message):
        cuda.scan(library, cuda.Call(), kind, state_size)
