"""A model must reproduce its check once on each device, and is then trusted there."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bsmamba2 import DeviceError
from bsmamba2.audio.array import Audio
from bsmamba2.devices.device import Device
from bsmamba2.files.cache import cache_folder
from bsmamba2.models import verdict
from bsmamba2.models.check import make_check
from support.engines import StubEngine, Stubs, half

ABOUT = {"model": "0" * 64, "onnxruntime": "1.32.0"}
MakeEngine = Callable[..., StubEngine]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BSMAMBA2_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def engine(stub: Stubs) -> MakeEngine:
    """``engine(separate)``: runs that function, and carries the check of half the mixture."""
    check = make_check(stub.half(sample_rate=8000))

    def make(separate: Callable[[Audio], Any] = half) -> StubEngine:
        return stub.of(separate, sample_rate=8000, check=check)

    return make


def count_runs(engine: StubEngine, about: Mapping[str, str] = ABOUT) -> int:
    """Returns how many times the engine runs until its verdict is known."""
    before = len(engine.lengths)
    verdict.require_verdict(engine, about)
    return len(engine.lengths) - before


def test_only_the_first_use_runs_the_check(engine: MakeEngine) -> None:
    assert (count_runs(engine()), count_runs(engine())) == (1, 0)


def test_a_model_without_a_check_is_not_run(stub: Stubs) -> None:
    assert count_runs(stub.half()) == 0


@pytest.mark.parametrize("name", ["model", "onnxruntime"])
def test_another_model_or_version_is_checked_again(engine: MakeEngine, name: str) -> None:
    count_runs(engine())
    assert count_runs(engine(), ABOUT | {name: "other"}) == 1


def test_other_hardware_is_checked_again(
    engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    count_runs(engine())
    monkeypatch.setattr(Device, "hardware", "Slow Card")
    assert (count_runs(engine()), count_runs(engine())) == (1, 0)


def test_another_kind_of_device_is_checked_again(engine: MakeEngine) -> None:
    count_runs(engine())
    moved = engine()
    moved.device = Device("cuda")
    assert count_runs(moved) == 1


@pytest.mark.parametrize(
    "separate",
    [
        lambda chunk: 0.501 * chunk[np.newaxis],
        lambda chunk: np.full((1, *chunk.shape), np.nan, np.float32),
        lambda chunk: np.roll(0.5 * chunk[np.newaxis], 1, axis=-1),
    ],
    ids=["a wrong gain", "not finite", "a sample late"],
)
def test_a_wrong_output_is_refused_every_time(
    engine: MakeEngine, separate: Callable[[Audio], Audio]
) -> None:
    for _ in range(2):
        with pytest.raises(DeviceError, match="stub on cpu does not reproduce its check: the SNR"):
            count_runs(engine(separate))


def test_a_device_that_was_fixed_is_trusted(engine: MakeEngine) -> None:
    with pytest.raises(DeviceError):
        count_runs(engine(lambda chunk: chunk[np.newaxis]))
    assert (count_runs(engine()), count_runs(engine())) == (1, 0)


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff\x00", b'{"sha256": "0", "content": {}}'])
def test_a_damaged_verdict_is_ignored_and_written_again(engine: MakeEngine, damage: bytes) -> None:
    count_runs(engine())
    (path,) = (cache_folder() / "verdicts").iterdir()
    path.write_bytes(damage)
    assert (count_runs(engine()), count_runs(engine())) == (1, 0)


def test_a_verdict_below_the_snr_that_is_now_required_does_not_count(engine: MakeEngine) -> None:
    count_runs(engine(lambda chunk: 0.5001 * chunk[np.newaxis]))
    strict = engine()
    check = strict.manifest.check
    assert check is not None
    strict.manifest = strict.manifest.replace(check=dataclasses.replace(check, snr_db=100.0))
    assert count_runs(strict) == 1


def test_a_cache_that_cannot_be_written_costs_a_run_but_is_no_error(
    engine: MakeEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("BSMAMBA2_CACHE", str(tmp_path / "file"))
    assert (count_runs(engine()), count_runs(engine())) == (1, 1)


def test_a_check_is_found_by_its_checkpoint_and_sizes(stub: Stubs) -> None:
    engine = stub.half(sample_rate=8000, checkpoint_sha256="a" * 64)
    manifest, check = engine.manifest, make_check(engine)
    assert verdict.find_check(manifest) is None
    assert verdict.keep_check(manifest, check)
    kept = verdict.find_check(manifest)
    assert kept is not None
    np.testing.assert_array_equal(kept.expected, check.expected)
    assert verdict.find_check(manifest.replace(hop=2)) is None
    assert verdict.find_check(manifest.replace(checkpoint_sha256="b" * 64)) is None


def test_a_check_of_another_length_is_ignored(stub: Stubs) -> None:
    manifest = stub.half(sample_rate=8000, checkpoint_sha256="a" * 64).manifest
    short = make_check(stub.half(sample_rate=8000, channels=1))
    verdict.keep_check(manifest, short)
    assert verdict.find_check(manifest) is None
