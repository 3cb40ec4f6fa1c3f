"""The CUDA kernels against the recurrence in float64, lane by lane on the CPU."""

from __future__ import annotations

import numpy as np
import pytest

from kernel.scans import snr_db

from .memory import of_model

LEAST_DB = {"fp32": 100, "fp16": 55, "bf16": 40}


def check(memory, least_db):
    for wanted, got in zip(memory.wanted(), memory.outputs(), strict=True):
        assert snr_db(wanted, got) >= least_db


@pytest.mark.parametrize("kind", LEAST_DB)
@pytest.mark.parametrize("state_size", [64, 128])
@pytest.mark.parametrize("reverse", [0, 1])
def test_every_kernel_gives_the_recurrence(lanes, kind, state_size, reverse):
    scan = of_model(batch=2, length=70, heads=2, state_size=state_size, reverse=reverse)
    check(lanes(scan, kind), LEAST_DB[kind])


@pytest.mark.parametrize("kind", ["fp32", "bf16"])
@pytest.mark.parametrize("length", [0, 1, 2, 3, 31, 32, 33, 63, 64, 65, 130])
def test_lengths_around_the_chunks_give_the_recurrence(lanes, kind, length):
    check(lanes(of_model(length=length, states=1), kind), LEAST_DB[kind])


@pytest.mark.parametrize("heads", [1, 3, 8, 16])
def test_heads_and_rows_that_are_not_aligned_give_the_recurrence(lanes, heads):
    check(lanes(of_model(length=40, heads=heads), "fp16"), LEAST_DB["fp16"])


@pytest.mark.parametrize("states", [None, 1, 0])
def test_states_of_all_of_one_and_of_none_give_the_recurrence(lanes, states):
    check(lanes(of_model(batch=3, length=70, states=states), "fp32"), LEAST_DB["fp32"])


@pytest.mark.parametrize("kind", LEAST_DB)
def test_no_lane_waits_for_a_barrier_that_is_not_there(lanes, kind):
    scan = of_model(batch=2, length=130, heads=2, reverse=1)
    one, other = lanes(scan, kind), lanes(scan, kind, last_lane_first=True)
    for a, b in zip(one.outputs(), other.outputs(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_call_in_two_equals_the_whole(lanes):
    scan = of_model(length=150, heads=2)
    first = lanes(scan.but(zxbcdt=scan["zxbcdt"][:, :77].copy()))
    _, conv_state, ssm_state = first.outputs()
    second = lanes(
        scan.but(zxbcdt=scan["zxbcdt"][:, 77:].copy(), conv_state=conv_state, ssm_state=ssm_state)
    )
    whole = lanes(scan).outputs()
    joined = np.concatenate([first.outputs()[0], second.outputs()[0]], 1)
    assert snr_db(whole[0], joined) >= 110
    assert snr_db(whole[2], second.outputs()[2]) >= 110


def test_states_that_nobody_reads_change_nothing(lanes):
    scan = of_model(length=100)
    np.testing.assert_array_equal(lanes(scan).outputs()[0], lanes(scan, states=False).outputs()[0])


def test_tiny_steps_after_huge_ones_keep_their_accuracy(lanes):
    scan = of_model(length=300, heads=2)
    huge = np.random.default_rng(1).random((1, 300, 2)) < 0.1
    scan["zxbcdt"][..., -2:] = np.where(huge, 50, -14)
    check(lanes(scan), LEAST_DB["fp32"])


def test_float16_outlives_activations_whose_squares_it_cannot_hold(lanes):
    scan = of_model(length=70)
    gate = scan["zxbcdt"][..., :64]
    gate[:] = np.abs(gate) * 5000  # before the norm y is beyond 65504
    check(lanes(scan, "fp16"), LEAST_DB["fp16"])


def test_a_nan_stays_in_its_sequence(lanes):
    scan = of_model(batch=2, length=100)
    scan["zxbcdt"][0, 50, 70] = np.nan
    y = lanes(scan, "bf16").outputs()[0]
    assert np.isnan(y[0, 50:]).any()
    assert np.isfinite(y[1]).all()
