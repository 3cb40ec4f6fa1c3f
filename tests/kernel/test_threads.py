"""Threads share the work and leave no trace; sequences do not touch each other."""

from __future__ import annotations

import numpy as np
import pytest

from .scans import random_scan


@pytest.mark.parametrize("threads", [2, 3, 8])
@pytest.mark.parametrize(("batch", "length"), [(1, 1500), (3, 300), (31, 70), (100, 62)])
def test_any_number_of_threads_gives_the_same_bits(run, batch, length, threads):
    scan = random_scan(batch=batch, length=length, heads=5)
    for alone, shared in zip(run(scan, threads=1), run(scan, threads=threads), strict=True):
        np.testing.assert_array_equal(alone, shared)


def test_a_sequence_has_the_same_bits_alone_and_among_many(run):
    scan = random_scan(batch=40, length=200, states=1)
    alone = run(scan.but(zxbcdt=scan["zxbcdt"][7:8]))[0]
    np.testing.assert_array_equal(run(scan)[0][7], alone[0])


def test_an_output_larger_than_the_caches_has_the_same_bits(run):
    scan = random_scan(batch=129, length=66, heads=16, head_dim=64, states=0)
    y = run(scan, outputs=("y",))[0]
    assert y.nbytes > 32e6
    few = run(scan.but(zxbcdt=scan["zxbcdt"][-2:]), outputs=("y",))[0]
    np.testing.assert_array_equal(y[-2:], few)


@pytest.mark.parametrize("batch", [4, 40])
def test_nan_in_one_sequence_stays_in_it(run, batch):
    scan = random_scan(batch=batch, length=200)
    clean = run(scan)
    scan["zxbcdt"][2, 100] = np.nan
    others = np.arange(batch) != 2
    for got, wanted in zip(run(scan), clean, strict=True):
        np.testing.assert_array_equal(got[others], wanted[others])


@pytest.mark.parametrize("column", ["z", "x", "B", "C", "dt"])
def test_nan_that_goes_in_comes_out(run, column):
    scan = random_scan(batch=1, length=200)
    at = {"z": 0, "x": 16, "B": 32, "C": 40, "dt": 48}[column]
    scan["zxbcdt"][0, 100, at] = np.nan
    y = run(scan)[0]
    assert np.isnan(y[0, 100]).all()
    assert np.isfinite(y[0, :64]).all()


@pytest.mark.parametrize("name", ["conv_state", "ssm_state"])
def test_nan_in_a_state_comes_out(run, name):
    scan = random_scan(batch=2)
    scan[name][1, 0] = np.nan
    y = run(scan)[0]
    assert np.isnan(y[1, 0]).all()
    assert np.isfinite(y[0]).all()
