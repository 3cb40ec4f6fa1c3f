"""Recording a CUDA graph while no other thread of this process uses CUDA.

ONNX Runtime records in CUDA's global mode: an allocation or a synchronous copy by any other thread,
even on another card, makes the recording fail. So does freeing memory, which Python's garbage
collection may do in any thread: what owns memory of a card is kept in :class:`Held`.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from bsmamba2.devices.device import Device


class CaptureLock:
    """Any number of threads may use CUDA, or one may record.

    A thread that holds the lock must not take it again: it would wait for itself.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._users = 0
        self._recording = False
        self._deferred: list[Callable[[], object]] = []

    @property
    def is_recording(self) -> bool:
        """Whether a thread records, or waits for its turn."""
        return self._recording

    @contextlib.contextmanager
    def using(self) -> Iterator[None]:
        """Waits while another thread records; meanwhile none starts to record."""
        with self._changed:
            self._changed.wait_for(lambda: not self._recording)
            self._users += 1
        try:
            yield
        finally:
            with self._changed:
                self._users -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Waits until no other thread uses CUDA or records; meanwhile none does."""
        with self._changed:
            self._changed.wait_for(lambda: not self._recording)
            self._recording = True  # from now on nobody starts, so this thread's turn comes
            self._changed.wait_for(lambda: not self._users)
        try:
            yield
        finally:
            with self._changed:
                deferred, self._deferred = self._deferred, []
                self._recording = False
                self._changed.notify_all()
            for free in deferred:
                self.release(free)

    def release(self, free: Callable[[], object]) -> None:
        """Calls ``free``, which frees memory of a card: now, or after the recording if one runs.

        It never waits, so a finaliser may call it, in any thread.
        """
        with self._changed:
            if self._recording:
                self._deferred.append(free)
                return
            self._users += 1
        try:
            free()
        finally:
            with self._changed:
                self._users -= 1
                self._changed.notify_all()


CAPTURE = CaptureLock()
"""The lock of this process."""


class Held:
    """Objects that own memory of a card, the last of which is dropped first.

    When nothing uses this object any more, it drops them, but not while a thread records. So it
    must be the only owner of the objects.
    """

    def __init__(self, *objects: Any) -> None:
        self.objects = [*objects]
        weakref.finalize(self, CAPTURE.release, self.objects.clear).atexit = False


def using(device: Device) -> AbstractContextManager[None]:
    """Returns :meth:`CaptureLock.using` of this process for a card, and nothing for a CPU."""
    return contextlib.nullcontext() if device.kind == "cpu" else CAPTURE.using()
