"""The states carry a scan from one call to the next; reverse scans backwards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from .scans import Array, Run, Scan, random_scan, snr_db


def run_in_parts(run: Run, scan: Scan, cuts: Sequence[int]) -> list[Array]:
    """Runs the same tokens in several calls, each starting from the states of the previous one."""
    parts = np.split(scan["zxbcdt"], cuts, axis=1)
    outputs = []
    for tokens in parts[::-1] if scan.reverse else parts:
        y, conv_state, ssm_state = run(scan.with_tensors(zxbcdt=tokens))
        scan = scan.with_tensors(conv_state=conv_state, ssm_state=ssm_state)
        outputs.append(y)
    y = np.concatenate(outputs[::-1] if scan.reverse else outputs, 1)
    return [y, conv_state, ssm_state]


def assert_equal(expected: Iterable[Array], got: Iterable[Array]) -> None:
    assert all(snr_db(e, g) >= 110 for e, g in zip(expected, got, strict=True))


@given(cut=st.integers(0, 150), reverse=st.integers(0, 1), batch=st.sampled_from([1, 40]))
def test_two_calls_with_the_state_passed_on_equal_one_call(
    run: Run, cut: int, reverse: int, batch: int
) -> None:
    scan = random_scan(batch=batch, length=150, reverse=reverse)
    assert_equal(run(scan), run_in_parts(run, scan, [cut]))


@pytest.mark.parametrize("reverse", [0, 1])
def test_one_token_per_call_equals_one_call(run: Run, reverse: int) -> None:
    scan = random_scan(length=70, reverse=reverse)
    assert_equal(run(scan), run_in_parts(run, scan, range(1, 70)))


def test_two_calls_split_between_segments_have_the_same_bits_as_one(run: Run) -> None:
    scan = random_scan(length=192)
    for whole, parts in zip(run(scan), run_in_parts(run, scan, [64]), strict=True):
        np.testing.assert_array_equal(whole, parts)


def test_a_call_without_tokens_returns_the_states_unchanged(run: Run) -> None:
    scan = random_scan(batch=3, length=0, states=1)
    y, conv_state, ssm_state = run(scan)
    assert y.shape == (3, 0, 16)
    np.testing.assert_array_equal(conv_state, np.repeat(scan["conv_state"], 3, axis=0))
    np.testing.assert_array_equal(ssm_state, np.repeat(scan["ssm_state"], 3, axis=0))


@pytest.mark.parametrize("batch", [5, 40])
def test_a_state_of_batch_one_is_shared_by_all_sequences(run: Run, batch: int) -> None:
    scan = random_scan(batch=batch, states=1)
    states = {n: np.repeat(scan[n], batch, axis=0) for n in ("conv_state", "ssm_state")}
    for shared, own in zip(run(scan), run(scan.with_tensors(**states)), strict=True):
        np.testing.assert_array_equal(shared, own)


def test_reverse_scans_the_tokens_backwards(run: Run) -> None:
    forward, backward = random_scan(length=130), random_scan(length=130, reverse=1)
    flipped = forward.with_tensors(zxbcdt=np.ascontiguousarray(forward["zxbcdt"][:, ::-1]))
    expected = run(flipped)
    expected[0] = expected[0][:, ::-1]
    for e, g in zip(expected, run(backward), strict=True):
        np.testing.assert_array_equal(e, g)


def test_a_token_does_not_change_earlier_outputs(run: Run) -> None:
    scan = random_scan(length=150)
    later = scan["zxbcdt"].copy()
    later[:, 100:] += 1
    changed = run(scan.with_tensors(zxbcdt=later))[0]
    np.testing.assert_array_equal(run(scan)[0][:, :100], changed[:, :100])
