"""NVIDIA's driver and its cards, without a CUDA toolkit.

All facts are read from the driver's library (CUDA driver API; its release from NVML). So
``CUDA_VISIBLE_DEVICES`` applies, and card N here is ``cuda:N``.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache

from bsmamba2.devices.libraries import open_library

CUDA = ("libcuda.so.1", "nvcuda.dll")
NVML = ("libnvidia-ml.so.1", "nvml.dll")

_COMPUTE_MAJOR, _COMPUTE_MINOR = 75, 76  # CUdevice_attribute


@dataclass(frozen=True)
class Card:
    """One GPU."""

    name: str
    compute: tuple[int, int]
    """Compute capability, e.g. (9, 0)."""
    memory: int
    """Bytes."""


@dataclass(frozen=True)
class Driver:
    """The driver, and the cards that this process can see."""

    cards: tuple[Card, ...] = ()
    cuda: tuple[int, int] = (0, 0)
    """The newest version of CUDA that it supports."""
    release: str = "unknown"
    """Its own version, e.g. ``580.65.06``."""
    fault: str = ""
    """The driver's reason for showing no cards; empty if it works."""


@cache
def driver() -> Driver | None:
    """Returns the driver of this machine, queried once per process; None without one."""
    cuda = open_library(*CUDA)
    if cuda is None:
        return None
    try:
        return Driver(_cards(cuda), _version(cuda), _release())
    except _RefusedError as refused:
        return Driver(cuda=_version(cuda), release=_release(), fault=str(refused))


def compute_capability(index: int) -> tuple[int, int]:
    """Returns the compute capability of card N, e.g. (9, 0); (0, 0) if there is no such card."""
    known = driver()
    return known.cards[index].compute if known and index < len(known.cards) else (0, 0)


class _RefusedError(Exception):
    """A call of the driver failed."""


def error_text(cuda: ctypes.CDLL, status: int) -> str:
    """Returns the driver's description of a CUDA error, or its number if the driver has none."""
    text = ctypes.c_char_p()
    known = cuda.cuGetErrorString(status, ctypes.byref(text)) == 0 and text.value
    return known.decode("ascii", "replace") if known else f"CUDA error {status}"


def _call(cuda: ctypes.CDLL, name: str, *arguments: object) -> None:
    status = getattr(cuda, name)(*arguments)
    if status != 0:
        raise _RefusedError(error_text(cuda, status))


def _cards(cuda: ctypes.CDLL) -> tuple[Card, ...]:
    count = ctypes.c_int()
    _call(cuda, "cuInit", 0)
    _call(cuda, "cuDeviceGetCount", ctypes.byref(count))
    return tuple(_card(cuda, index) for index in range(count.value))


def _card(cuda: ctypes.CDLL, index: int) -> Card:
    device, major, minor, memory = ctypes.c_int(), ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
    name = ctypes.create_string_buffer(256)
    _call(cuda, "cuDeviceGet", ctypes.byref(device), index)
    _call(cuda, "cuDeviceGetName", name, len(name), device)
    _call(cuda, "cuDeviceTotalMem_v2", ctypes.byref(memory), device)
    _call(cuda, "cuDeviceGetAttribute", ctypes.byref(major), _COMPUTE_MAJOR, device)
    _call(cuda, "cuDeviceGetAttribute", ctypes.byref(minor), _COMPUTE_MINOR, device)
    return Card(name.value.decode("utf-8", "replace"), (major.value, minor.value), memory.value)


def _version(cuda: ctypes.CDLL) -> tuple[int, int]:
    number = ctypes.c_int()
    cuda.cuDriverGetVersion(ctypes.byref(number))  # 13010 is 13.1
    return number.value // 1000, number.value % 1000 // 10


def _release() -> str:
    nvml = open_library(*NVML)
    if nvml is None or nvml.nvmlInit_v2() != 0:
        return "unknown"
    text = ctypes.create_string_buffer(96)
    succeeded = nvml.nvmlSystemGetDriverVersion(text, len(text)) == 0
    nvml.nvmlShutdown()
    return text.value.decode("ascii", "replace") if succeeded else "unknown"
