"""GPU memory, copies and streams through NVIDIA's driver alone, for engines without PyTorch."""

from __future__ import annotations

import ctypes
import math
import weakref
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from bsmamba2.audio.array import Audio
from bsmamba2.devices import nvidia
from bsmamba2.devices.capture import CAPTURE
from bsmamba2.devices.libraries import open_library
from bsmamba2.errors import DeviceError

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING
_NO_TIMING = 2  # CU_EVENT_DISABLE_TIMING


class CudaStream:
    """A CUDA stream: a queue of work on one card, executed in order."""

    def __init__(self, index: int) -> None:
        library = open_library(*nvidia.CUDA)
        if library is None:
            raise DeviceError("there is no NVIDIA driver: install one, or use device='cpu'")
        self.library = library
        device = ctypes.c_int()
        self.context, self._stream = ctypes.c_void_p(), ctypes.c_void_p()
        self._event = ctypes.c_void_p()
        self.call("cuInit", 0)
        self.call("cuDeviceGet", ctypes.byref(device), index)
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(self.context), device)
        self.enter()
        self.call("cuStreamCreate", ctypes.byref(self._stream), _NON_BLOCKING)
        self.call("cuEventCreate", ctypes.byref(self._event), _NO_TIMING)
        owned = self.context, device, self._stream, self._event
        free = partial(_free_stream, library, *owned)
        weakref.finalize(self, CAPTURE.release, free).atexit = False

    @property
    def handle(self) -> int:
        """The stream as other libraries expect it, a cudaStream_t."""
        return self._stream.value or 0

    def enter(self) -> None:
        """Makes the card's context current in this thread; call it before each use."""
        self.call("cuCtxSetCurrent", self.context)

    def follow(self, other: CudaStream) -> None:
        """Makes later work on this stream wait for all work on the other stream so far."""
        self.call("cuEventRecord", other._event, other._stream)
        self.call("cuStreamWaitEvent", self._stream, other._event, 0)

    def wait(self) -> None:
        """Waits until all work on the stream is done."""
        self.call("cuStreamSynchronize", self._stream)

    def call(self, name: str, *arguments: Any) -> None:
        """Calls a function of the driver.

        Raises:
            DeviceError: the call failed.
        """
        status = getattr(self.library, name)(*arguments)
        if status:
            reason = nvidia.error_text(self.library, status)
            fix = "; use shorter chunks, or free the card's memory" if status == 2 else ""
            raise DeviceError(f"the NVIDIA card failed at {name}: {reason}{fix}")


class CudaBuffer:
    """A float32 buffer on the card and one in pinned host memory; both grow but never shrink."""

    def __init__(self, stream: CudaStream) -> None:
        self._stream = stream
        self._bytes = 0
        self._device, self._host = ctypes.c_uint64(), ctypes.c_void_p()
        owned = stream.library, stream.context, self._device, self._host
        weakref.finalize(self, CAPTURE.release, partial(_free_buffer, *owned)).atexit = False

    @property
    def address(self) -> int:
        """Address on the card."""
        return self._device.value

    def reserve(self, shape: Sequence[int]) -> None:
        """Grows the buffer to hold an array of this shape."""
        needed = 4 * math.prod(shape)
        if needed <= self._bytes:
            return
        self._bytes = 0  # if allocating fails, the buffer is empty
        _free_buffer(self._stream.library, self._stream.context, self._device, self._host)
        self._stream.call("cuMemAlloc_v2", ctypes.byref(self._device), ctypes.c_size_t(needed))
        self._stream.call("cuMemAllocHost_v2", ctypes.byref(self._host), ctypes.c_size_t(needed))
        self._bytes = needed

    def host(self, shape: Sequence[int]) -> Audio:
        """Returns the pinned memory as an array."""
        self.reserve(shape)
        floats = ctypes.cast(self._host, ctypes.POINTER(ctypes.c_float))
        return np.ctypeslib.as_array(floats, tuple(shape))

    def upload(self, values: Audio) -> None:
        """Copies an array to the card, on the stream."""
        self.host(values.shape)[...] = values
        size = ctypes.c_size_t(values.nbytes)
        self._stream.call("cuMemcpyHtoDAsync_v2", self._device, self._host, size, self._handle)

    def download(self, shape: Sequence[int]) -> Audio:
        """Copies from the card, waits, and returns a new array."""
        size = ctypes.c_size_t(4 * math.prod(shape))
        self._stream.call("cuMemcpyDtoHAsync_v2", self._host, self._device, size, self._handle)
        self._stream.wait()
        return self.host(shape).copy()

    @property
    def _handle(self) -> ctypes.c_void_p:
        return ctypes.c_void_p(self._stream.handle)


# What no Python object uses any more is freed. The driver waits for work in progress: cuMemFree for
# the card, cuStreamDestroy in the background. An error would have no reader, and at the end of the
# process the driver frees everything itself.


def _free_stream(library: Any, context: Any, device: Any, stream: Any, event: Any) -> None:
    library.cuCtxSetCurrent(context)
    library.cuEventDestroy_v2(event)
    library.cuStreamDestroy_v2(stream)
    library.cuDevicePrimaryCtxRelease_v2(device)


def _free_buffer(library: Any, context: Any, device: Any, host: Any) -> None:
    library.cuCtxSetCurrent(context)
    for free, memory in ((library.cuMemFree_v2, device), (library.cuMemFreeHost, host)):
        if memory.value:
            free(memory)
            memory.value = 0
