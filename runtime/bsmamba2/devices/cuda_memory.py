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

    def upload(self, address: int, values: Audio) -> None:
        """Copies an array, which must be in pinned memory, to an address on the card."""
        self._copy("cuMemcpyHtoDAsync_v2", ctypes.c_uint64(address), _pointer(values), values)

    def download(self, values: Audio, address: int) -> None:
        """Fills an array, which must be in pinned memory, from an address on the card."""
        self._copy("cuMemcpyDtoHAsync_v2", _pointer(values), ctypes.c_uint64(address), values)

    def _copy(self, function: str, to: Any, source: Any, values: Audio) -> None:
        self.call(function, to, source, ctypes.c_size_t(values.nbytes), self._stream)

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


def _pointer(values: Audio) -> ctypes.c_void_p:
    return ctypes.c_void_p(values.ctypes.data)


class PinnedBuffer:
    """Pinned host memory, which copies to and from the card read and write in the background.

    It grows but never shrinks.
    """

    def __init__(self, stream: CudaStream) -> None:
        self._stream = stream
        self._bytes = 0
        self._memory = ctypes.c_void_p()
        free = partial(_free, stream.library, stream.context, "cuMemFreeHost", self._memory)
        weakref.finalize(self, CAPTURE.release, free).atexit = False

    def array(self, shape: Sequence[int]) -> Audio:
        """Returns the memory as a float32 array of this shape."""
        needed, stream = 4 * math.prod(shape), self._stream
        if needed > self._bytes:
            self._bytes = 0  # if allocating fails, the buffer is empty
            _free(stream.library, stream.context, "cuMemFreeHost", self._memory)
            size = ctypes.c_size_t(needed)
            stream.call("cuMemAllocHost_v2", ctypes.byref(self._memory), size)
            self._bytes = needed
        floats = ctypes.cast(self._memory, ctypes.POINTER(ctypes.c_float))
        return np.ctypeslib.as_array(floats, tuple(shape))


class CudaBuffer:
    """A float32 buffer on the card and one in pinned host memory; both grow but never shrink."""

    def __init__(self, stream: CudaStream) -> None:
        self._stream, self._pinned = stream, PinnedBuffer(stream)
        self._bytes = 0
        self._device = ctypes.c_uint64()
        free = partial(_free, stream.library, stream.context, "cuMemFree_v2", self._device)
        weakref.finalize(self, CAPTURE.release, free).atexit = False

    @property
    def address(self) -> int:
        """Address on the card."""
        return self._device.value

    def reserve(self, shape: Sequence[int]) -> None:
        """Grows the buffer to hold an array of this shape."""
        needed, stream = 4 * math.prod(shape), self._stream
        if needed <= self._bytes:
            return
        self._bytes = 0  # if allocating fails, the buffer is empty
        _free(stream.library, stream.context, "cuMemFree_v2", self._device)
        stream.call("cuMemAlloc_v2", ctypes.byref(self._device), ctypes.c_size_t(needed))
        self._pinned.array(shape)
        self._bytes = needed

    def host(self, shape: Sequence[int]) -> Audio:
        """Returns the pinned memory as an array."""
        self.reserve(shape)
        return self._pinned.array(shape)

    def upload(self, values: Audio) -> None:
        """Copies an array to the card, on the stream."""
        pinned = self.host(values.shape)
        pinned[...] = values
        self._stream.upload(self.address, pinned)

    def download(self, shape: Sequence[int]) -> Audio:
        """Copies from the card, waits, and returns a new array."""
        pinned = self.host(shape)
        self._stream.download(pinned, self.address)
        self._stream.wait()
        return pinned.copy()


# What no Python object uses any more is freed. The driver waits for work in progress: cuMemFree for
# the card, cuStreamDestroy in the background. An error would have no reader, and at the end of the
# process the driver frees everything itself.


def _free_stream(library: Any, context: Any, device: Any, stream: Any, event: Any) -> None:
    library.cuCtxSetCurrent(context)
    library.cuEventDestroy_v2(event)
    library.cuStreamDestroy_v2(stream)
    library.cuDevicePrimaryCtxRelease_v2(device)


def _free(library: Any, context: Any, function: str, memory: Any) -> None:
    library.cuCtxSetCurrent(context)
    if memory.value:
        getattr(library, function)(memory)
        memory.value = 0
