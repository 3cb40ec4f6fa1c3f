"""The engine of TensorRT behind the runtime's protocol, with a TensorRT and a card made up."""

from __future__ import annotations

import ctypes
import dataclasses
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import numpy as np
import pytest

from bsmamba2.audio.snr import snr_db
from bsmamba2.devices import cuda_memory, nvidia
from bsmamba2.engines import tensorrt_engine
from bsmamba2.errors import AudioError, DeviceError, ModelError
from bsmamba2.files.cache import cache_folder
from bsmamba2.formats.manifest import Manifest
from bsmamba2.models.check import check_input, make_check
from bsmamba2.models.model import describe, open_engine

from .fake_tensorrt import FakeTensorRT
from .lazy_card import LazyCard


def test_a_chunk_goes_to_the_card_and_comes_back(card, write):
    engine = open_engine(write(), verify=False)
    for samples in (44100, 300, 20000):  # buffers grow and are used again
        chunk = check_input(1, 2, samples)
        assert snr_db(chunk[None], engine.run(chunk)) > 110
    assert engine.device == "tensorrt:0"


def test_an_engine_reproduces_its_check_at_first_use(card, write):
    engine = open_engine(write(), verify=False)
    check = make_check(engine)
    manifest = Manifest("voice", target="tensorrt", check=check)
    assert open_engine(write(manifest=manifest)).manifest.check.samples == check.samples
    wrong = dataclasses.replace(check, expected=-check.expected)
    with pytest.raises(DeviceError, match="does not reproduce its check"):
        open_engine(write(b"another", manifest=Manifest("voice", check=wrong)))


def test_what_is_larger_than_the_engine_is_refused(card, write):
    engine = open_engine(write(), verify=False)
    with pytest.raises(AudioError, match="takes up to 2 x 101 frames, and 1 x 201 came"):
        engine.run(check_input(1, 2, 88200))


@pytest.mark.parametrize(
    ("changes", "kind", "sentence"),
    [
        ({"gpus": ("sm89",)}, DeviceError, "built for sm89, and tensorrt:0 is NVIDIA H100 or sm90"),
        ({"version": "1.6"}, ModelError, "built by tensorrt-rtx 1.6, and 1.7 is installed"),
        ({"data": b"nothing"}, ModelError, "refuses voice.engine: update the driver, or build"),
    ],
)
def test_an_engine_of_elsewhere_is_refused(card, write, changes, kind, sentence):
    with pytest.raises(kind, match=sentence):
        open_engine(write(**changes), verify=False)


def test_without_a_card_there_is_a_sentence(write, monkeypatch):
    monkeypatch.setattr(nvidia, "driver", lambda: None)
    with pytest.raises(DeviceError, match="no NVIDIA driver"):
        open_engine(write())
    with pytest.raises(DeviceError, match="does not run this model"):
        open_engine(write(), "cpu")


def test_an_engine_is_described_without_being_loaded(write):
    assert describe(write()).name == "voice"


def test_a_full_card_is_a_sentence(card, write, monkeypatch):
    engine = open_engine(write(), verify=False)
    monkeypatch.setenv("FAKE_GPU_FULL", "1")
    with pytest.raises(DeviceError, match="use shorter chunks, or free the card's memory"):
        engine.run(check_input(1, 2, 5000))


class CompilingTensorRT(FakeTensorRT):
    """Compiles where its cache has nothing; the cache refuses what it did not write."""

    compiled: ClassVar[list[str]] = []

    class Runtime(FakeTensorRT.Runtime):
        cache = b""

        def create_runtime_config(self):
            return self

        create_runtime_cache = create_runtime_config

        def deserialize(self, data):
            self.cache = data if data == b"kernels" else b""
            return bool(self.cache)

        def set_runtime_cache(self, cache):
            assert cache is self

        def create_execution_context(self, config):
            return super().create_execution_context()

        def execute_async_v3(self, stream):
            if not self.cache:
                CompilingTensorRT.compiled.append("kernels")
                self.cache = b"kernels"
            return super().execute_async_v3(stream)

        def serialize(self):
            return self.cache


def test_what_the_card_compiled_is_kept_for_the_next_process(card, write, monkeypatch):
    monkeypatch.setattr(tensorrt_engine, "import_tensorrt", lambda backend: CompilingTensorRT)
    monkeypatch.setattr(CompilingTensorRT, "compiled", [])
    for data, compiled in ((b"one", 1), (b"one", 1), (b"another", 2)):
        open_engine(write(data), verify=False).run_spectrum(spectra(3, 0))
        assert len(CompilingTensorRT.compiled) == compiled
    for kept in (cache_folder() / "compiled").iterdir():
        kept.write_bytes(b"damaged")
    open_engine(write(b"one"), verify=False).run_spectrum(spectra(3, 0))
    assert len(CompilingTensorRT.compiled) == 3


class LazyTensorRT(FakeTensorRT):
    """Its engines copy when their stream gets there, to the addresses of when they were asked."""

    card: LazyCard

    class Runtime(FakeTensorRT.Runtime):
        def execute_async_v3(self, stream):
            to, source, size = self.addresses["stems"], self.addresses["spectrum"], self.bytes
            LazyTensorRT.card.put(stream, lambda: ctypes.memmove(to, source, size))
            return True


@pytest.fixture
def lazy(card, monkeypatch, write):
    """``lazy(waiting=0)``: an engine on a card that does everything as late as it may."""

    def open_on(waiting=0):
        LazyTensorRT.card = LazyCard(waiting)
        monkeypatch.setattr(cuda_memory, "open_library", lambda *names: LazyTensorRT.card)
        monkeypatch.setattr(tensorrt_engine, "import_tensorrt", lambda backend: LazyTensorRT)
        return open_engine(write(), verify=False)

    return open_on


def spectra(frames, seed):
    random = np.random.default_rng(seed)
    return random.standard_normal((1, 2, frames, 1025, 2)).astype(np.float32)


def test_nothing_is_read_before_it_is_there(lazy):
    engine = lazy()
    for seed, frames in enumerate((3, 7, 2, 7)):
        given = spectra(frames, seed)
        np.testing.assert_array_equal(engine.run_spectrum(given), given[:, None])


def test_threads_get_each_its_own(lazy):
    engine = lazy()
    many = [spectra(2 + seed % 3, seed) for seed in range(24)]
    with ThreadPoolExecutor(4) as pool:
        for given, got in zip(many, pool.map(engine.run_spectrum, many), strict=True):
            np.testing.assert_array_equal(got, given[:, None])


def test_the_next_run_is_on_the_card_before_the_last_is_waited_for(lazy):
    engine = lazy(waiting=2)  # breaks where one run must end before the next is put on
    many = [spectra(3, seed) for seed in range(6)]
    with ThreadPoolExecutor(2) as pool:
        for given, got in zip(many, pool.map(engine.run_spectrum, many), strict=True):
            np.testing.assert_array_equal(got, given[:, None])


def test_a_run_that_fails_gives_its_slot_back(card, write, monkeypatch):
    engine = open_engine(write(), verify=False)
    monkeypatch.setattr(FakeTensorRT.Runtime, "execute_async_v3", lambda *given: False)
    for _ in range(5):
        with pytest.raises(ModelError, match="failed to run: build it again for this card"):
            engine.run_spectrum(spectra(2, 0))
