"""Memory of a card, tested with a mock card that does its work as late as possible."""

from __future__ import annotations

import numpy as np
import pytest

from bsmamba2.audio.array import Audio
from bsmamba2.devices import cuda_memory
from bsmamba2.devices.cuda_memory import CudaBuffer, CudaStream
from bsmamba2.errors import DeviceError

from .lazy_card import LazyCard


@pytest.fixture
def lazy_card(monkeypatch: pytest.MonkeyPatch) -> LazyCard:
    card = LazyCard()
    monkeypatch.setattr(cuda_memory, "open_library", lambda *names: card)
    return card


def values(*shape: int) -> Audio:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.usefixtures("lazy_card")
def test_uploaded_values_are_downloaded_again() -> None:
    buffer = CudaBuffer(CudaStream(0))
    for shape in ((2, 3), (5, 7), (1, 1)):
        buffer.upload(values(*shape))
        np.testing.assert_array_equal(buffer.download(shape), values(*shape))


@pytest.mark.usefixtures("lazy_card")
def test_a_download_stays_intact_when_the_buffer_is_reused() -> None:
    buffer = CudaBuffer(CudaStream(0))
    buffer.upload(values(4))
    first = buffer.download([4])
    buffer.upload(np.zeros(4, np.float32))
    buffer.download([4])
    np.testing.assert_array_equal(first, values(4))


@pytest.mark.usefixtures("lazy_card")
def test_a_buffer_grows_but_never_shrinks() -> None:
    buffer = CudaBuffer(CudaStream(0))
    buffer.reserve([100])
    address = buffer.address
    for samples in (1, 50, 100):
        buffer.reserve([samples])
        assert buffer.address == address
    buffer.reserve([101])
    assert buffer.host([101]).shape == (101,)


def test_what_nobody_uses_any_more_is_freed(lazy_card: LazyCard) -> None:
    stream = CudaStream(0)
    buffers = [CudaBuffer(stream), CudaBuffer(stream), CudaBuffer(stream)]
    for samples in (100, 200):  # the second time the buffers grow
        for buffer in buffers[:2]:
            buffer.reserve([samples])
    assert lazy_card.held == 4 + 2 + 1
    del buffers, buffer
    assert lazy_card.held == 2 + 1
    del stream
    assert lazy_card.held == 0


def test_a_stream_waits_for_the_work_of_the_stream_that_it_follows(lazy_card: LazyCard) -> None:
    first, second, done = CudaStream(0), CudaStream(0), list[str]()
    lazy_card.put(first.handle, lambda: done.append("first"))
    second.follow(first)
    lazy_card.put(second.handle, lambda: done.append("second"))
    second.wait()
    assert done == ["first", "second"]


def test_a_missing_driver_is_an_error_with_a_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_memory, "open_library", lambda *names: None)
    with pytest.raises(DeviceError, match="no NVIDIA driver: install one, or use device='cpu'"):
        CudaStream(0)


@pytest.mark.usefixtures("card")
def test_a_full_card_is_an_error_with_a_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = CudaBuffer(CudaStream(0))
    monkeypatch.setenv("FAKE_GPU_FULL", "1")
    with pytest.raises(DeviceError, match="failed at cuMemAlloc_v2: .*; use shorter chunks, or fr"):
        buffer.reserve([1])
    monkeypatch.delenv("FAKE_GPU_FULL")
    buffer.upload(values(3))
    np.testing.assert_array_equal(buffer.download([3]), values(3))
