"""The CUDA kernels match the recurrence in float64, run lane by lane on the CPU."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from kernel.scans import snr_db

from .conftest import L4_SHARED_BYTES
from .memory import Memory, kernel_scan

Lanes = Callable[..., Memory]
LEAST_DB = {"fp32": 100, "fp16": 55, "bf16": 40}


def check(memory: Memory, least_db: float) -> None:
    for expected, got in zip(memory.expected(), memory.outputs(), strict=True):
        assert snr_db(expected, got) >= least_db


@pytest.mark.parametrize("kind", LEAST_DB)
@pytest.mark.parametrize("state_size", [64, 128])
@pytest.mark.parametrize("reverse", [0, 1])
def test_every_kernel_matches_the_recurrence(
    lanes: Lanes, kind: str, state_size: int, reverse: int
) -> None:
    scan = kernel_scan(batch=2, length=70, heads=2, state_size=state_size, reverse=reverse)
    check(lanes(scan, kind), LEAST_DB[kind])


@pytest.mark.parametrize("kind", ["fp16", "bf16"])
@pytest.mark.parametrize("length", [0, 1, 31, 32, 33, 70])
def test_shorter_segments_for_little_shared_memory_match_the_recurrence(
    lanes: Lanes, kind: str, length: int
) -> None:
    scan = kernel_scan(batch=2, length=length, heads=2, state_size=128, reverse=1)
    check(lanes(scan, kind, shared=L4_SHARED_BYTES), LEAST_DB[kind])


@pytest.mark.parametrize("kind", ["fp32", "bf16"])
@pytest.mark.parametrize("length", [0, 1, 2, 3, 31, 32, 33, 63, 64, 65, 130])
def test_lengths_near_multiples_of_a_segment_match_the_recurrence(
    lanes: Lanes, kind: str, length: int
) -> None:
    check(lanes(kernel_scan(length=length, states=1), kind), LEAST_DB[kind])


@pytest.mark.parametrize("heads", [1, 3, 8, 16])
def test_unaligned_rows_match_the_recurrence(lanes: Lanes, heads: int) -> None:
    check(lanes(kernel_scan(length=40, heads=heads), "fp16"), LEAST_DB["fp16"])


@pytest.mark.parametrize("states", [None, 1, 0])
def test_separate_shared_and_zero_states_match_the_recurrence(
    lanes: Lanes, states: int | None
) -> None:
    check(lanes(kernel_scan(batch=3, length=70, states=states), "fp32"), LEAST_DB["fp32"])


@pytest.mark.parametrize("kind", LEAST_DB)
def test_results_do_not_depend_on_the_order_of_lanes(lanes: Lanes, kind: str) -> None:
    """A missing barrier would make them differ."""
    scan = kernel_scan(batch=2, length=130, heads=2, reverse=1)
    forward, backward = lanes(scan, kind), lanes(scan, kind, last_lane_first=True)
    for a, b in zip(forward.outputs(), backward.outputs(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_two_calls_with_the_state_passed_on_equal_one_call(lanes: Lanes) -> None:
    scan = kernel_scan(length=150, heads=2)
    first = lanes(scan.with_tensors(zxbcdt=scan["zxbcdt"][:, :77].copy()))
    _, conv_state, ssm_state = first.outputs()
    rest = scan["zxbcdt"][:, 77:].copy()
    second = lanes(scan.with_tensors(zxbcdt=rest, conv_state=conv_state, ssm_state=ssm_state))
    whole = lanes(scan).outputs()
    joined = np.concatenate([first.outputs()[0], second.outputs()[0]], 1)
    assert snr_db(whole[0], joined) >= 110
    assert snr_db(whole[2], second.outputs()[2]) >= 110


def test_omitted_states_do_not_change_y(lanes: Lanes) -> None:
    scan = kernel_scan(length=100)
    y = lanes(scan, states=False).outputs()[0]
    np.testing.assert_array_equal(lanes(scan).outputs()[0], y)


def test_tiny_steps_after_huge_ones_stay_accurate(lanes: Lanes) -> None:
    scan = kernel_scan(length=300, heads=2)
    huge = np.random.default_rng(1).random((1, 300, 2)) < 0.1
    scan["zxbcdt"][..., -2:] = np.where(huge, 50, -14)
    check(lanes(scan), LEAST_DB["fp32"])


def test_float16_handles_activations_whose_squares_overflow(lanes: Lanes) -> None:
    scan = kernel_scan(length=70)
    gate = scan["zxbcdt"][..., :64]
    gate[:] = np.abs(gate) * 5000  # before the norm, y exceeds 65504
    check(lanes(scan, "fp16"), LEAST_DB["fp16"])


def test_a_nan_stays_in_its_sequence(lanes: Lanes) -> None:
    scan = kernel_scan(batch=2, length=100)
    scan["zxbcdt"][0, 50, 70] = np.nan
    y = lanes(scan, "bf16").outputs()[0]
    assert np.isnan(y[0, 50:]).any()
    assert np.isfinite(y[1]).all()


@pytest.mark.parametrize("reverse", [0, 1])
def test_columns_of_padding_are_not_read(lanes: Lanes, reverse: int) -> None:
    scan = kernel_scan(batch=2, length=70, heads=3, reverse=reverse)
    more = -scan["zxbcdt"].shape[2] % 8
    padding = [(0, 0), (0, 0), (0, more)]
    padded = np.pad(scan["zxbcdt"], padding, constant_values=np.nan)
    expected = lanes(scan, "bf16").outputs()
    for a, b in zip(
        expected, lanes(scan.with_tensors(zxbcdt=padded), "bf16").outputs(), strict=True
    ):
        np.testing.assert_array_equal(a, b)
