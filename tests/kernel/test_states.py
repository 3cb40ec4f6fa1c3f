"""What goes from one call to the next, and what reverse means."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from .scans import random_scan, snr_db


def continued(run, scan, cuts):
    """The same tokens in several calls, each taking the states that the one before left."""
    parts = np.split(scan["zxbcdt"], cuts, axis=1)
    outputs = []
    for tokens in parts[::-1] if scan.reverse else parts:
        y, conv_state, ssm_state = run(scan.but(zxbcdt=tokens))
        scan = scan.but(conv_state=conv_state, ssm_state=ssm_state)
        outputs.append(y)
    return np.concatenate(outputs[::-1] if scan.reverse else outputs, 1), conv_state, ssm_state


def assert_same(wanted, got):
    assert all(snr_db(w, g) >= 110 for w, g in zip(wanted, got, strict=True))


@given(cut=st.integers(0, 150), reverse=st.integers(0, 1), batch=st.sampled_from([1, 40]))
def test_two_halves_with_the_state_handed_over_equal_the_whole(run, cut, reverse, batch):
    scan = random_scan(batch=batch, length=150, reverse=reverse)
    assert_same(run(scan), continued(run, scan, [cut]))


@pytest.mark.parametrize("reverse", [0, 1])
def test_one_token_at_a_time_equals_the_whole(run, reverse):
    scan = random_scan(length=70, reverse=reverse)
    assert_same(run(scan), continued(run, scan, range(1, 70)))


def test_halves_cut_at_a_chunk_have_the_same_bits(run):
    scan = random_scan(length=192)
    for whole, parts in zip(run(scan), continued(run, scan, [64]), strict=True):
        np.testing.assert_array_equal(whole, parts)


def test_no_tokens_leave_the_states_as_they_were(run):
    scan = random_scan(batch=3, length=0, states=1)
    y, conv_state, ssm_state = run(scan)
    assert y.shape == (3, 0, 16)
    np.testing.assert_array_equal(conv_state, np.repeat(scan["conv_state"], 3, axis=0))
    np.testing.assert_array_equal(ssm_state, np.repeat(scan["ssm_state"], 3, axis=0))


@pytest.mark.parametrize("batch", [5, 40])
def test_a_state_of_batch_one_is_that_of_every_sequence(run, batch):
    scan = random_scan(batch=batch, states=1)
    states = {n: np.repeat(scan[n], batch, axis=0) for n in ("conv_state", "ssm_state")}
    for shared, own in zip(run(scan), run(scan.but(**states)), strict=True):
        np.testing.assert_array_equal(shared, own)


def test_reverse_is_the_scan_of_the_flipped_tokens(run):
    forward, backward = random_scan(length=130), random_scan(length=130, reverse=1)
    flipped = forward.but(zxbcdt=np.ascontiguousarray(forward["zxbcdt"][:, ::-1]))
    wanted = run(flipped)
    wanted[0] = wanted[0][:, ::-1]
    for w, g in zip(wanted, run(backward), strict=True):
        np.testing.assert_array_equal(w, g)


def test_a_token_does_not_change_what_came_before_it(run):
    scan = random_scan(length=150)
    later = scan["zxbcdt"].copy()
    later[:, 100:] += 1
    np.testing.assert_array_equal(run(scan)[0][:, :100], run(scan.but(zxbcdt=later))[0][:, :100])
