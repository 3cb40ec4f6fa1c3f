"""The lock of CUDA graphs, observed from threads that report when they are inside."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack, contextmanager

import pytest

from bsmamba2.devices import capture
from bsmamba2.devices.capture import CAPTURE, CaptureLock, Held
from bsmamba2.devices.device import CPU, Device

SECONDS = 20


@contextmanager
def inside(lock: AbstractContextManager[None], leave: threading.Event) -> Iterator[threading.Event]:
    """Holds a lock in another thread; yields an event that is set once it does."""
    entered = threading.Event()

    def hold() -> None:
        with lock:
            entered.set()
            leave.wait(SECONDS)

    thread = threading.Thread(target=hold)
    thread.start()
    yield entered
    leave.set()
    thread.join(SECONDS)


def test_several_threads_use_cuda_at_once() -> None:
    lock, leave = CaptureLock(), threading.Event()
    with inside(lock.using(), leave) as first, inside(lock.using(), leave) as second:
        assert first.wait(SECONDS)
        assert second.wait(SECONDS)


@pytest.mark.parametrize("other", ["using", "recording"])
def test_nobody_enters_while_a_thread_records(other: str) -> None:
    lock, leave = CaptureLock(), threading.Event()
    with ExitStack() as stack:
        with lock.recording():
            entered = stack.enter_context(inside(getattr(lock, other)(), leave))
            assert not entered.wait(0.05)
        assert entered.wait(SECONDS)


def test_a_recording_waits_for_users_and_keeps_new_ones_out() -> None:
    lock, leave = CaptureLock(), threading.Event()
    with inside(lock.using(), leave) as user, inside(lock.recording(), leave) as recorder:
        assert user.wait(SECONDS)
        assert not recorder.wait(0.05)
        leave.set()
        assert recorder.wait(SECONDS)


@pytest.mark.parametrize("kind", ["using", "recording"])
def test_an_exception_releases_it(kind: str) -> None:
    lock = CaptureLock()
    with pytest.raises(ZeroDivisionError), getattr(lock, kind)():
        raise ZeroDivisionError
    with lock.recording():
        pass


def test_a_recording_is_always_alone() -> None:
    lock, users, seen = CaptureLock(), list[int](), list[int]()

    def use(index: int) -> None:
        if index % 5:
            with lock.using():
                users.append(index)
                users.remove(index)
        else:
            with lock.recording():
                seen.append(len(users))

    with ThreadPoolExecutor(8) as pool:
        wait([pool.submit(use, index) for index in range(500)], SECONDS)
    assert seen == [0] * 100


def test_on_a_cpu_nothing_waits() -> None:
    with CAPTURE.recording(), capture.using(CPU):
        pass
    with capture.using(Device("cuda", 0)):
        assert not CAPTURE.is_recording


def test_what_is_dropped_while_a_thread_records_is_freed_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lock, freed = CaptureLock(), list[str]()
    monkeypatch.setattr(capture, "CAPTURE", lock)
    with lock.recording():
        drop_memory(freed)
        assert freed == []
    assert freed == ["second", "first"]


def test_what_is_dropped_otherwise_is_freed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    lock, freed = CaptureLock(), list[str]()
    monkeypatch.setattr(capture, "CAPTURE", lock)
    with lock.using():
        drop_memory(freed)
        assert freed == ["second", "first"]


def test_nobody_starts_to_record_while_memory_is_freed() -> None:
    lock, leave = CaptureLock(), threading.Event()
    freeing = threading.Thread(target=lock.release, args=(lambda: leave.wait(20),))
    freeing.start()
    with inside(lock.recording(), leave) as recorder:
        assert not recorder.wait(0.05)
        leave.set()
        assert recorder.wait(20)
    freeing.join(20)


class Memory:
    """An object that adds its name to a list when it is dropped."""

    def __init__(self, name: str, dropped: list[str]) -> None:
        weakref.finalize(self, dropped.append, name)


def drop_memory(dropped: list[str]) -> None:
    """Holds two objects and drops the last reference to their holder."""
    Held(Memory("first", dropped), Memory("second", dropped))
