"""The check: noise that is the same everywhere, and the SNR of a model's output for it."""

from __future__ import annotations

import numpy as np
import pytest

from bsmamba2 import DeviceError
from bsmamba2.formats.manifest import Check
from bsmamba2.models.check import FAST_SNR_DB, check_input, make_check, reproduce
from support.engines import Stubs

LEVELS = [-16, -8, -1, -13, 15, -8, 14, -10]


def test_the_noise_is_the_same_on_every_machine() -> None:
    noise = check_input(seed=0, channels=2, samples=4)
    assert (noise.dtype, noise.shape) == (np.dtype(np.float32), (2, 4))
    assert np.round(32 * noise).astype(int).ravel().tolist() == LEVELS


def test_the_noise_is_uniform_within_half_of_full_scale() -> None:
    noise = check_input(seed=1, channels=2, samples=50_000)
    assert -0.5 <= noise.min() < -0.4999 < 0.4999 < noise.max() < 0.5
    assert abs(noise.mean()) < 0.005
    assert noise.std() == pytest.approx(12**-0.5, rel=0.01)


def test_a_check_keeps_every_nth_sample_of_a_second(stub: Stubs) -> None:
    engine = stub.half(sample_rate=8000)
    check = make_check(engine, snr_db=70.0, seed=3, stride=7)
    assert (check.seed, check.samples, check.stride, check.snr_db) == (3, 8000, 7, 70.0)
    assert engine.lengths == [8000]
    np.testing.assert_array_equal(check.expected, check_input(3, 2, 8000).ravel()[::7] / 2)


def test_an_engine_reproduces_its_own_check_exactly(stub: Stubs) -> None:
    check = make_check(stub.half(sample_rate=8000))
    assert reproduce(stub.half(sample_rate=8000, check=check)) == np.inf


def test_a_wrong_output_is_an_error_with_its_snr(stub: Stubs) -> None:
    check = make_check(stub.half(sample_rate=8000))
    message = "stub on cpu does not reproduce its check: the SNR must be at least 60 dB; got 0.0 dB"
    with pytest.raises(DeviceError, match=message):
        reproduce(stub.of(lambda chunk: 0 * chunk[np.newaxis], sample_rate=8000, check=check))


@pytest.mark.parametrize("values", [[np.nan], [np.inf], []])
def test_expected_values_that_no_device_can_reproduce_fail(
    stub: Stubs, values: list[float]
) -> None:
    check = Check(0, 8000, 16000, 60.0, np.array(values, np.float32))
    with pytest.raises(DeviceError, match="does not reproduce its check"):
        reproduce(stub.half(sample_rate=8000, check=check))


def test_a_lower_snr_passes_if_it_is_requested(stub: Stubs) -> None:
    check = make_check(stub.half(sample_rate=8000))
    worse = stub.of(lambda chunk: 0.46 * chunk[np.newaxis], sample_rate=8000, check=check)
    assert reproduce(worse, FAST_SNR_DB) == pytest.approx(21.9, abs=0.1)
    with pytest.raises(DeviceError, match="at least 60 dB; got 21.9 dB"):
        reproduce(worse)


def test_a_model_without_a_check_is_refused_with_a_fix(stub: Stubs) -> None:
    with pytest.raises(DeviceError, match="stub carries no check: export it again"):
        reproduce(stub.half())
