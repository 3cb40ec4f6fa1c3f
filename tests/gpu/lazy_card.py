"""A card that does nothing until it must: what is put on a stream is done when that is waited for.

Streams that do not follow one another are independent, so a missing dependency gives wrong numbers
here every time, and not only when a real card happens to be slow.
"""

from __future__ import annotations

import ctypes
import itertools
import threading
from collections import defaultdict, deque
from collections.abc import Callable


class LazyCard:
    """What ``bsmamba2.cuda_memory`` calls of the driver; memory of the card is memory of the host.

    Args:
        waiting: nobody's wait for a stream goes on before so many wait; 0 for no such rule.
    """

    def __init__(self, waiting: int = 0) -> None:
        self._handles = itertools.count(1)
        self._queues: dict[int, deque[Callable[[], None]]] = defaultdict(deque)
        self._marks: dict[int, tuple[list[bool], int]] = {}
        self._memory: dict[int, ctypes.Array[ctypes.c_char]] = {}
        self._lock = threading.RLock()
        self._together = threading.Barrier(waiting) if waiting else None

    def put(self, stream: int, work: Callable[[], None]) -> None:
        with self._lock:
            self._queues[stream].append(work)

    def _drain(self, stream: int) -> None:
        queue = self._queues[stream]
        while queue:
            queue.popleft()()

    # ---- The driver's functions; handles come as ctypes values, results go through pointers

    def cuInit(self, flags):  # noqa: N802
        return 0

    def cuDeviceGet(self, device, index):  # noqa: N802
        return 0

    def cuDevicePrimaryCtxRetain(self, context, device):  # noqa: N802
        return 0

    def cuCtxSetCurrent(self, context):  # noqa: N802
        return 0

    def cuStreamCreate(self, stream, flags):  # noqa: N802
        stream._obj.value = next(self._handles)
        return 0

    cuEventCreate = cuStreamCreate  # noqa: N815

    def cuEventRecord(self, event, stream):  # noqa: N802
        mark = [False]
        self._marks[event.value] = mark, stream.value
        self.put(stream.value, lambda: mark.__setitem__(0, True))
        return 0

    def cuStreamWaitEvent(self, stream, event, flags):  # noqa: N802
        mark, other = self._marks[event.value]

        def wait():
            while not mark[0]:
                self._queues[other].popleft()()

        self.put(stream.value, wait)
        return 0

    def cuStreamSynchronize(self, stream):  # noqa: N802
        if self._together:
            self._together.wait(timeout=20)
        with self._lock:
            self._drain(stream.value)
        return 0

    def cuMemAlloc_v2(self, address, size):  # noqa: N802
        memory = ctypes.create_string_buffer(size.value)
        address._obj.value = ctypes.addressof(memory)
        self._memory[address._obj.value] = memory
        return 0

    cuMemAllocHost_v2 = cuMemAlloc_v2  # noqa: N815

    def cuMemFree_v2(self, address):  # noqa: N802
        del self._memory[address.value]
        return 0

    cuMemFreeHost = cuMemFree_v2  # noqa: N815

    def cuMemcpyHtoDAsync_v2(self, to, source, size, stream):  # noqa: N802
        to, source, size = to.value, source.value, size.value
        self.put(stream.value, lambda: ctypes.memmove(to, source, size))
        return 0

    cuMemcpyDtoHAsync_v2 = cuMemcpyHtoDAsync_v2  # noqa: N815
