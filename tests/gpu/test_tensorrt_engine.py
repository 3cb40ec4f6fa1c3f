"""The TensorRT engine in the runtime, with mocks of TensorRT and the card."""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from bsmamba2.audio.array import Audio
from bsmamba2.audio.snr import snr_db
from bsmamba2.devices import cuda_memory, nvidia
from bsmamba2.devices.device import Device
from bsmamba2.engines import tensorrt_engine
from bsmamba2.engines.tensorrt_engine import TensorRtEngine
from bsmamba2.errors import AudioError, DeviceError, ModelError
from bsmamba2.files.cache import cache_folder
from bsmamba2.formats.manifest import Manifest
from bsmamba2.models.check import check_input, make_check
from support.models import open_engine

from .conftest import KEY
from .fake_tensorrt import FakeTensorRT
from .lazy_card import LazyCard

Write = Callable[..., Path]
needs_card = pytest.mark.usefixtures("card")


def open_tensorrt(path: Path) -> TensorRtEngine:
    engine = open_engine(path, verify=False)
    assert isinstance(engine, TensorRtEngine)
    return engine


@needs_card
def test_a_chunk_is_copied_to_the_card_and_back(write: Write) -> None:
    engine = open_engine(write(), verify=False)
    for samples in (44100, 300, 20000):  # buffers grow and are reused
        chunk = check_input(1, 2, samples)
        assert snr_db(chunk[None], engine.run(chunk)) > 110
    assert engine.device == Device("tensorrt", 0)


@needs_card
def test_an_engine_for_audio_takes_as_many_samples_as_it_has_frames(write: Write) -> None:
    manifest = Manifest("voice", target="tensorrt", io="waveform")
    engine = open_engine(write(manifest=manifest), verify=False)
    longest = KEY.frames * manifest.hop - 1
    for samples in (300, 44100, longest):
        chunk = check_input(1, 2, samples)
        np.testing.assert_array_equal(engine.run(chunk), chunk[None])
    with pytest.raises(AudioError, match="must have up to 2 x 101 frames; got 1 x 102"):
        engine.run(check_input(1, 2, longest + 1))


@needs_card
def test_an_engine_must_reproduce_its_check_at_first_use(write: Write) -> None:
    engine = open_engine(write(), verify=False)
    check = make_check(engine)
    manifest = Manifest("voice", target="tensorrt", check=check)
    opened = open_engine(write(manifest=manifest)).manifest.check
    assert opened is not None
    assert opened.samples == check.samples
    wrong = dataclasses.replace(check, expected=-check.expected)
    with pytest.raises(DeviceError, match="does not reproduce its check"):
        open_engine(write(b"another", manifest=Manifest("voice", check=wrong)))


@needs_card
def test_input_larger_than_the_engine_is_refused(write: Write) -> None:
    engine = open_engine(write(), verify=False)
    with pytest.raises(AudioError, match="must have up to 2 x 101 frames; got 1 x 201"):
        engine.run(check_input(1, 2, 88200))


@needs_card
@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"gpus": ("sm89",)}, DeviceError, "built for, sm89; got NVIDIA H100 or sm90"),
        ({"version": "1.6"}, ModelError, "built by tensorrt-rtx 1.6, and 1.7 is installed"),
        ({"data": b"nothing"}, ModelError, "refuses voice.engine: update the driver, or build"),
    ],
)
def test_an_engine_built_for_something_else_is_refused(
    write: Write, changes: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        open_engine(write(**changes), verify=False)


def test_without_a_card_opening_an_engine_is_an_error(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nvidia, "driver", lambda: None)
    with pytest.raises(DeviceError, match="no NVIDIA driver"):
        open_engine(write())
    with pytest.raises(DeviceError, match=r"device must be auto or tensorrt\[:N\]"):
        open_engine(write(), "cpu")


@needs_card
def test_a_full_card_is_reported_with_a_fix(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = open_engine(write(), verify=False)
    monkeypatch.setenv("FAKE_GPU_FULL", "1")
    with pytest.raises(DeviceError, match="use shorter chunks, or free the card's memory"):
        engine.run(check_input(1, 2, 5000))


class CompilingTensorRT(FakeTensorRT):
    """Compiles if its cache is empty. The cache rejects data that it did not write."""

    compiled: ClassVar[list[str]] = []

    class Runtime(FakeTensorRT.Runtime):
        cache = b""

        def create_runtime_config(self) -> Any:
            return self

        create_runtime_cache = create_runtime_config

        def deserialize(self, data: bytes) -> bool:
            self.cache = data if data == b"kernels" else b""
            return bool(self.cache)

        def set_runtime_cache(self, cache: Any) -> None:
            assert cache is self

        def create_execution_context(self, config: Any = None) -> Any:
            return super().create_execution_context()

        def execute_async_v3(self, stream: int) -> bool:
            if not self.cache:
                CompilingTensorRT.compiled.append("kernels")
                self.cache = b"kernels"
            return super().execute_async_v3(stream)

        def serialize(self) -> bytes:
            return self.cache


@needs_card
def test_compiled_kernels_are_kept_for_the_next_process(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt_engine, "import_tensorrt", lambda backend: CompilingTensorRT)
    monkeypatch.setattr(CompilingTensorRT, "compiled", [])
    for data, compiled in ((b"one", 1), (b"one", 1), (b"another", 2)):
        open_tensorrt(write(data)).run_spectrum(spectra(3, 0))
        assert len(CompilingTensorRT.compiled) == compiled
    for kept in (cache_folder() / "compiled").iterdir():
        kept.write_bytes(b"damaged")
    open_tensorrt(write(b"one")).run_spectrum(spectra(3, 0))
    assert len(CompilingTensorRT.compiled) == 3


class LazyTensorRT(FakeTensorRT):
    """Its engines copy when their stream runs, to the addresses that were set at the call."""

    card: LazyCard

    class Runtime(FakeTensorRT.Runtime):
        def execute_async_v3(self, stream: int) -> bool:
            to, source, size = self.addresses["stems"], self.addresses["spectrum"], self.bytes
            LazyTensorRT.card.put(stream, lambda: ctypes.memmove(to, source, size))
            return True


@pytest.fixture
def lazy(
    card: None, monkeypatch: pytest.MonkeyPatch, write: Write
) -> Callable[..., TensorRtEngine]:
    """``lazy(waiting=0)`` opens an engine on a card that does everything as late as possible."""

    def open_on(waiting: int = 0) -> TensorRtEngine:
        LazyTensorRT.card = LazyCard(waiting)
        monkeypatch.setattr(cuda_memory, "open_library", lambda *names: LazyTensorRT.card)
        monkeypatch.setattr(tensorrt_engine, "import_tensorrt", lambda backend: LazyTensorRT)
        return open_tensorrt(write())

    return open_on


def spectra(frames: int, seed: int) -> Audio:
    random = np.random.default_rng(seed)
    return random.standard_normal((1, 2, frames, 1025, 2)).astype(np.float32)


def test_an_engine_that_nobody_uses_any_more_frees_its_memory(
    lazy: Callable[..., TensorRtEngine],
) -> None:
    engine = lazy()
    engine.run_spectrum(spectra(3, 0))
    assert LazyTensorRT.card.held
    del engine
    assert LazyTensorRT.card.held == 0


def test_no_data_is_read_before_it_is_written(lazy: Callable[..., TensorRtEngine]) -> None:
    engine = lazy()
    for seed, frames in enumerate((3, 7, 2, 7)):
        values = spectra(frames, seed)
        np.testing.assert_array_equal(engine.run_spectrum(values), values[:, None])


def test_each_thread_gets_the_result_of_its_input(lazy: Callable[..., TensorRtEngine]) -> None:
    engine = lazy()
    many = [spectra(2 + seed % 3, seed) for seed in range(24)]
    with ThreadPoolExecutor(4) as pool:
        for values, got in zip(many, pool.map(engine.run_spectrum, many), strict=True):
            np.testing.assert_array_equal(got, values[:, None])


def test_a_run_is_enqueued_before_the_previous_one_ends(
    lazy: Callable[..., TensorRtEngine],
) -> None:
    engine = lazy(waiting=2)  # times out if one run must end before the next is enqueued
    many = [spectra(3, seed) for seed in range(6)]
    with ThreadPoolExecutor(2) as pool:
        for values, got in zip(many, pool.map(engine.run_spectrum, many), strict=True):
            np.testing.assert_array_equal(got, values[:, None])


@needs_card
def test_a_run_that_fails_returns_its_slot(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = open_tensorrt(write())
    monkeypatch.setattr(FakeTensorRT.Runtime, "execute_async_v3", lambda *arguments: False)
    for _ in range(5):
        with pytest.raises(ModelError, match="failed to run: build it again for this card"):
            engine.run_spectrum(spectra(2, 0))
