"""A model must reproduce its check once on every device, and then never again."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from bsmamba2 import DeviceError
from bsmamba2.devices.device import Device
from bsmamba2.files.cache import cache_folder
from bsmamba2.models import verdict
from bsmamba2.models.check import make_check
from support.models import MANIFEST, gain_model, open_engine

ABOUT = {"model": "0" * 64, "onnxruntime": "1.32.0"}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BSMAMBA2_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def engine(stub):
    """``engine(separate)``: runs that, and carries the check of half the mixture."""
    check = make_check(stub.half(sample_rate=8000))

    def make(separate=lambda chunk: 0.5 * chunk[np.newaxis]):
        return stub.of(separate, sample_rate=8000, check=check)

    return make


def runs(engine, about=ABOUT):
    """How many runs of the engine the verdict takes."""
    before = len(engine.lengths)
    verdict.require_verdict(engine, about)
    return len(engine.lengths) - before


def test_the_first_use_is_one_run_of_a_second_and_the_next_is_none(engine):
    assert (runs(engine()), runs(engine())) == (1, 0)


def test_a_model_without_a_check_is_not_run(stub):
    assert runs(stub.half()) == 0


@pytest.mark.parametrize("what", ["model", "onnxruntime"])
def test_another_model_or_version_is_another_verdict(engine, what):
    runs(engine())
    assert runs(engine(), ABOUT | {what: "other"}) == 1


def test_other_hardware_is_another_verdict(engine, monkeypatch):
    runs(engine())
    monkeypatch.setattr(Device, "hardware", "Slow Card")
    assert (runs(engine()), runs(engine())) == (1, 0)


def test_another_kind_of_device_is_another_verdict(engine):
    runs(engine())
    moved = engine()
    moved.device = "cuda:0"
    assert runs(moved) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        lambda chunk: 0.501 * chunk[np.newaxis],
        lambda chunk: np.full((1, *chunk.shape), np.nan, np.float32),
        lambda chunk: np.roll(0.5 * chunk[np.newaxis], 1, axis=-1),
    ],
    ids=["a wrong gain", "not finite", "a sample late"],
)
def test_a_wrong_answer_is_refused_every_time(engine, wrong):
    for _ in range(2):
        with pytest.raises(DeviceError, match="stub on cpu does not reproduce its check: SNR"):
            runs(engine(wrong))


def test_a_device_that_was_mended_is_trusted(engine):
    with pytest.raises(DeviceError):
        runs(engine(lambda chunk: chunk[np.newaxis]))
    assert (runs(engine()), runs(engine())) == (1, 0)


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff\x00", b'{"sha256": "0", "content": {}}'])
def test_a_damaged_verdict_is_ignored_and_written_anew(engine, damage):
    runs(engine())
    (path,) = (cache_folder() / "verdicts").iterdir()
    path.write_bytes(damage)
    assert (runs(engine()), runs(engine())) == (1, 0)


def test_a_verdict_below_what_is_wanted_now_does_not_count(engine):
    runs(engine(lambda chunk: 0.5001 * chunk[np.newaxis]))
    strict = engine()
    stricter = dataclasses.replace(strict.manifest.check, snr_db=100.0)
    strict.manifest = strict.manifest.replace(check=stricter)
    assert runs(strict) == 1


def test_a_cache_that_cannot_be_written_costs_a_run_and_no_error(engine, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("BSMAMBA2_CACHE", str(tmp_path / "file"))
    assert (runs(engine()), runs(engine())) == (1, 1)


def test_a_check_is_kept_by_the_checkpoint_and_its_sizes(stub):
    engine = stub.half(sample_rate=8000, checkpoint_sha256="a" * 64)
    manifest, check = engine.manifest, make_check(engine)
    assert verdict.find_check(manifest) is None
    assert verdict.keep_check(manifest, check)
    np.testing.assert_array_equal(verdict.find_check(manifest).expected, check.expected)
    assert verdict.find_check(manifest.replace(hop=2)) is None
    assert verdict.find_check(manifest.replace(checkpoint_sha256="b" * 64)) is None


def test_a_check_of_another_length_is_not_taken(stub):
    manifest = stub.half(sample_rate=8000, checkpoint_sha256="a" * 64).manifest
    short = make_check(stub.half(sample_rate=8000, channels=1))
    verdict.keep_check(manifest, short)
    assert verdict.find_check(manifest) is None


def test_a_model_file_is_checked_when_it_is_opened(stub, tmp_path):
    path, right = tmp_path / "gain.onnx", make_check(stub.half())
    path.write_bytes(gain_model(MANIFEST.replace(check=right)))
    open_engine(path, "cpu")
    open_engine(path, "cpu")
    assert len(list((cache_folder() / "verdicts").iterdir())) == 1
    path.write_bytes(gain_model(MANIFEST.replace(check=make_check(stub.identity()))))
    with pytest.raises(DeviceError, match="gain on cpu does not reproduce its check"):
        open_engine(path, "cpu")
    assert open_engine(path, "cpu", verify=False).device == "cpu"
