"""Results do not depend on the number of threads or on the other sequences of a batch."""

from __future__ import annotations

import numpy as np
import pytest

from .scans import Run, random_scan


@pytest.mark.parametrize("threads", [2, 3, 8])
@pytest.mark.parametrize(("batch", "length"), [(1, 1500), (3, 300), (31, 70), (100, 62)])
def test_results_have_the_same_bits_for_any_number_of_threads(
    run: Run, batch: int, length: int, threads: int
) -> None:
    scan = random_scan(batch=batch, length=length, heads=5)
    for one, many in zip(run(scan, threads=1), run(scan, threads=threads), strict=True):
        np.testing.assert_array_equal(one, many)


def test_a_sequence_has_the_same_bits_alone_and_in_a_batch(run: Run) -> None:
    scan = random_scan(batch=40, length=200, states=1)
    alone = run(scan.with_tensors(zxbcdt=scan["zxbcdt"][7:8]))[0]
    np.testing.assert_array_equal(run(scan)[0][7], alone[0])


def test_an_output_larger_than_the_caches_has_the_same_bits(run: Run) -> None:
    scan = random_scan(batch=129, length=66, heads=16, head_dim=64, states=0)
    y = run(scan, outputs=("y",))[0]
    assert y.nbytes > 32e6
    few = run(scan.with_tensors(zxbcdt=scan["zxbcdt"][-2:]), outputs=("y",))[0]
    np.testing.assert_array_equal(y[-2:], few)


@pytest.mark.parametrize("batch", [4, 40])
def test_a_nan_stays_in_its_sequence(run: Run, batch: int) -> None:
    scan = random_scan(batch=batch, length=200)
    clean = run(scan)
    scan["zxbcdt"][2, 100] = np.nan
    others = np.arange(batch) != 2
    for got, expected in zip(run(scan), clean, strict=True):
        np.testing.assert_array_equal(got[others], expected[others])


@pytest.mark.parametrize("column", ["z", "x", "B", "C", "dt"])
def test_a_nan_in_a_token_reaches_the_output(run: Run, column: str) -> None:
    scan = random_scan(batch=1, length=200)
    at = {"z": 0, "x": 16, "B": 32, "C": 40, "dt": 48}[column]
    scan["zxbcdt"][0, 100, at] = np.nan
    y = run(scan)[0]
    assert np.isnan(y[0, 100]).all()
    assert np.isfinite(y[0, :64]).all()


@pytest.mark.parametrize("name", ["conv_state", "ssm_state"])
def test_a_nan_in_a_state_reaches_the_output(run: Run, name: str) -> None:
    scan = random_scan(batch=2)
    scan[name][1, 0] = np.nan
    y = run(scan)[0]
    assert np.isnan(y[1, 0]).all()
    assert np.isfinite(y[0]).all()
