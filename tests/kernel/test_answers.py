"""The kernel agrees with the recurrence in float64 to at least 100 dB, at all sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from .scans import INPUTS, Run, Scan, random_scan, recurrence, session, snr_db


def check(run: Run, scan: Scan, least_db: float = 100) -> None:
    for expected, got in zip(recurrence(scan), run(scan), strict=True):
        assert snr_db(expected, got) >= least_db


sizes = st.fixed_dictionaries(
    {
        "batch": st.integers(0, 6),
        "length": st.integers(0, 200),
        "heads": st.integers(1, 5),
        "head_dim": st.sampled_from([1, 5, 16, 64, 80]),
        "state_size": st.sampled_from([1, 7, 16, 64, 130]),
        "taps": st.integers(2, 4),
        "reverse": st.integers(0, 1),
        "states": st.sampled_from([None, 1, 0]),
        "seed": st.integers(0, 2**32 - 1),
    }
)


@given(sizes=sizes)
def test_any_sizes_match_the_recurrence(run: Run, sizes: dict[str, Any]) -> None:
    check(run, random_scan(**sizes))


@pytest.mark.parametrize("reverse", [0, 1])
@pytest.mark.parametrize("length", [0, 1, 2, 3, 63, 64, 65, 128, 129, 801, 2000])
def test_lengths_near_multiples_of_a_segment_match_the_recurrence(
    run: Run, length: int, reverse: int
) -> None:
    check(run, random_scan(batch=1, length=length, reverse=reverse))


@pytest.mark.parametrize("batch", [0, 1, 31, 32, 33, 900])
def test_few_and_many_sequences_match_the_recurrence(run: Run, batch: int) -> None:
    check(run, random_scan(batch=batch, length=70))


@pytest.mark.parametrize("state_size", [64, 128])
def test_the_sizes_of_the_models_match_the_recurrence(run: Run, state_size: int) -> None:
    check(run, random_scan(length=200, heads=16, head_dim=64, state_size=state_size))


# softplus(x) is x for large x, and tiny for very negative x.
@pytest.mark.parametrize("A", [1e-3, 1, 16, 100])
@pytest.mark.parametrize("delta", [1e-6, 1e-3, 0.7, 50])
def test_extreme_steps_and_decays_do_not_cancel_or_underflow(
    run: Run, delta: float, A: float
) -> None:
    scan = random_scan(batch=1, length=2000)
    scan["zxbcdt"][..., -2:] = np.log(np.expm1(delta))
    scan["dt_bias"][:] = 0
    scan["A_log"][:] = np.log(A)
    check(run, scan)


def test_tiny_steps_after_huge_ones_stay_accurate(run: Run) -> None:
    scan = random_scan(batch=1, length=2000)
    huge = np.random.default_rng(1).random((1, 2000, 2)) < 0.1
    scan["zxbcdt"][..., -2:] = np.where(huge, 50, -14)
    check(run, scan)


def test_large_activations_saturate_correctly(run: Run) -> None:
    scan = random_scan()
    scan["zxbcdt"][...] *= 60
    check(run, scan)


def test_float16_tokens_are_computed_in_float32(run: Run) -> None:
    scan = random_scan(length=150, reverse=1)
    half = scan.with_tensors(zxbcdt=scan["zxbcdt"].astype(np.float16))
    y, conv_state, ssm_state = run(half)
    assert y.dtype == np.float16
    assert snr_db(recurrence(half)[0].astype(np.float16), y) >= 90
    assert snr_db(recurrence(half)[2], ssm_state) >= 100
    np.testing.assert_array_equal(recurrence(half)[1], conv_state)


def test_omitted_outputs_do_not_change_the_others(run: Run) -> None:
    scan = random_scan(length=130)
    y, _, ssm_state = run(scan)
    np.testing.assert_array_equal(run(scan, outputs=("y",))[0], y)
    np.testing.assert_array_equal(run(scan, outputs=("y", "", "ssm_state_out"))[1], ssm_state)


def test_a_graph_that_slices_and_concatenates_time_loads_and_runs(library: Path) -> None:
    """The length of a slice is unknown to ONNX Runtime, and has no name."""
    scan = random_scan(length=30)
    names = ", ".join(INPUTS[1:])
    inputs = ", ".join(f"float[{', '.join(map(str, scan[n].shape))}] {n}" for n in INPUTS[1:])
    proto = onnx.parser.parse_model(f"""
        <ir_version: 10, opset_import: ["": 18, "bsmamba2": 1]>
        graph (float[b, t, 50] zxbcdt, {inputs})
            => (float[b, u, 16] twice)
            <int64[1] from = {{5}}, int64[1] to = {{99}}, int64[1] axis = {{1}}> {{
            late = Slice(zxbcdt, from, to, axis)
            y = bsmamba2.mamba2_scan <head_dim = 8, state_size = 8> (late, {names})
            twice = Concat <axis = 1> (y, y)
        }}""")
    (twice,) = session(library, proto.SerializeToString()).run(None, scan.tensors)
    expected, _, _ = recurrence(scan.with_tensors(zxbcdt=scan["zxbcdt"][:, 5:]))
    assert snr_db(np.concatenate([expected, expected], 1), twice) >= 100
