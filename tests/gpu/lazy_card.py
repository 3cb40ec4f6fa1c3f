"""A mock card that runs the work of a stream only when a caller waits for that stream.

Streams that do not wait for one another are independent. So a missing dependency gives wrong
results every time, not only when a real card happens to be slow.
"""

# ruff: noqa: N802, N815 - the methods have the names of the driver's functions

from __future__ import annotations

import ctypes
import itertools
import threading
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any


class LazyCard:
    """The driver's functions that ``bsmamba2.devices.cuda_memory`` calls, with host memory.

    Args:
        waiting: how many threads must wait for a stream before any of them continues; with 0 none
            has to wait for others.
    """

    def __init__(self, waiting: int = 0) -> None:
        self._handles = itertools.count(1)
        self._queues: dict[int, deque[Callable[[], Any]]] = defaultdict(deque)
        self._marks: dict[int, tuple[list[bool], int]] = {}
        self._memory: dict[int, ctypes.Array[ctypes.c_char]] = {}
        self._lock = threading.RLock()
        self._made: set[int] = set()
        self._contexts = 0
        self._together = threading.Barrier(waiting) if waiting else None

    @property
    def held(self) -> int:
        """How many buffers, streams, events and contexts are not freed."""
        return len(self._memory) + len(self._made) + self._contexts

    def put(self, stream: int, work: Callable[[], Any]) -> None:
        """Adds work to a stream."""
        with self._lock:
            self._queues[stream].append(work)

    def _drain(self, stream: int) -> None:
        queue = self._queues[stream]
        while queue:
            queue.popleft()()

    # ---- The driver's functions. Handles are ctypes values; results are written through pointers.

    def cuInit(self, flags: Any) -> int:
        return 0

    def cuDeviceGet(self, device: Any, index: Any) -> int:
        return 0

    def cuDevicePrimaryCtxRetain(self, context: Any, device: Any) -> int:
        self._contexts += 1
        return 0

    def cuDevicePrimaryCtxRelease_v2(self, device: Any) -> int:
        self._contexts -= 1
        return 0

    def cuCtxSetCurrent(self, context: Any) -> int:
        return 0

    def cuStreamCreate(self, stream: Any, flags: Any) -> int:
        stream._obj.value = next(self._handles)
        self._made.add(stream._obj.value)
        return 0

    cuEventCreate = cuStreamCreate

    def cuStreamDestroy_v2(self, stream: Any) -> int:
        self._made.remove(stream.value)
        return 0

    cuEventDestroy_v2 = cuStreamDestroy_v2

    def cuEventRecord(self, event: Any, stream: Any) -> int:
        mark = [False]
        self._marks[event.value] = mark, stream.value
        self.put(stream.value, lambda: mark.__setitem__(0, True))
        return 0

    def cuStreamWaitEvent(self, stream: Any, event: Any, flags: Any) -> int:
        mark, other = self._marks[event.value]

        def wait() -> None:
            while not mark[0]:
                self._queues[other].popleft()()

        self.put(stream.value, wait)
        return 0

    def cuStreamSynchronize(self, stream: Any) -> int:
        if self._together:
            self._together.wait(timeout=20)
        with self._lock:
            self._drain(stream.value)
        return 0

    def cuMemAlloc_v2(self, address: Any, size: Any) -> int:
        memory = ctypes.create_string_buffer(size.value)
        address._obj.value = ctypes.addressof(memory)
        self._memory[address._obj.value] = memory
        return 0

    cuMemAllocHost_v2 = cuMemAlloc_v2

    def cuMemFree_v2(self, address: Any) -> int:
        del self._memory[address.value]
        return 0

    cuMemFreeHost = cuMemFree_v2

    def cuMemcpyHtoDAsync_v2(self, to: Any, source: Any, size: Any, stream: Any) -> int:
        to, source, size = to.value, source.value, size.value
        self.put(stream.value, lambda: ctypes.memmove(to, source, size))
        return 0

    cuMemcpyDtoHAsync_v2 = cuMemcpyHtoDAsync_v2
