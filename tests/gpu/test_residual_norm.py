"""The CUDA kernel of residual_norm matches its specification, run lane by lane on the CPU."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bsmamba2.devices.cuda import KINDS
from bsmamba2_network.residual_norm import body
from kernel.scans import snr_db

from .memory import TYPES

LEAST_DB = {"fp32": 120, "fp16": 70, "bf16": 50}
EPSILONS = 1e-5, 1e-24 / 64
Run = Callable[..., tuple[list[Tensor], tuple[Tensor, Tensor]]]


class Residual(ctypes.Structure):
    """``Residual`` of ``runtime/native/cuda/call.h``."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("batch", "m", "n")),
        ("features", ctypes.c_int32),
        *((name, ctypes.c_float) for name in ("epsilon", "next_epsilon")),
        *((name, ctypes.c_void_p) for name in ("x", "f", "b", "s", "bias", "joined", "unit")),
    )


@pytest.fixture
def run(lane_library: ctypes.CDLL) -> Run:
    """``run(kind, shape, last_lane_first=False)`` returns random inputs and the results."""
    lane_library.residual_norm_by_lanes.argtypes = [Residual, ctypes.c_int, ctypes.c_int]

    def run(
        kind: str, shape: tuple[int, ...], *, last_lane_first: bool = False
    ) -> tuple[list[Tensor], tuple[Tensor, Tensor]]:
        random = torch.Generator().manual_seed(0)
        b, m, n, features = shape
        tensors = [torch.randn(shape, generator=random)]
        tensors += [torch.randn(shape, generator=random).to(TYPES[kind]) for _ in range(3)]
        tensors.append(torch.randn(features, generator=random))
        joined = torch.full((b, n, m, features), torch.nan)
        unit = joined.to(TYPES[kind], copy=True)
        addresses = [value.data_ptr() for value in (*tensors, joined, unit)]
        call = Residual(*shape, *EPSILONS, *addresses)
        lane_library.residual_norm_by_lanes(call, KINDS[kind], last_lane_first)
        return tensors, (joined, unit)

    return run


@pytest.mark.parametrize("kind", LEAST_DB)
@pytest.mark.parametrize("features", [8, 64, 256, 264, 1024])
def test_the_kernel_matches_the_specification(run: Run, kind: str, features: int) -> None:
    tensors, (joined, unit) = run(kind, (2, 3, 5, features))
    x, forwards, backwards, scaled, bias = tensors
    expected = body(x, forwards, backwards, scaled, bias, *EPSILONS)
    assert snr_db(expected[0].numpy(), joined.numpy()) >= 120
    assert snr_db(expected[1].float().numpy(), unit.float().numpy()) >= LEAST_DB[kind]


def test_results_do_not_depend_on_the_order_of_lanes(run: Run) -> None:
    _, first = run("bf16", (1, 3, 3, 264))
    _, second = run("bf16", (1, 3, 3, 264), last_lane_first=True)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
