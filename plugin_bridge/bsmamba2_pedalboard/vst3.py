"""Our VST3 in this process: where it is, and how its instances reach their effects.

Pedalboard loads the library; ctypes opens the same file, so both see the same globals. An instance
belongs to the slot that is named while it is made, and its slot knows the effect. Callbacks run on
the thread that called Pedalboard. An exception cannot pass through the host, so it is handed over
as one that Python raises on that thread as soon as it is back.
"""

from __future__ import annotations

import atexit
import ctypes
import itertools
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Protocol

import numpy as np

from bsmamba2 import MissingExtra
from bsmamba2.audio.array import Audio

BUNDLE = "bsmamba2_pedalboard/native/bsmamba2.vst3"


class Live(Protocol):
    """What a slot asks of its effect."""

    def latency_samples(self, sample_rate: float) -> int:
        """Of signals at this rate."""
        ...

    def start(self, sample_rate: float, channels: int) -> None:
        """A new signal. Does not raise; process tells."""
        ...

    def process(self, block: Audio | None) -> None:
        """Replaces (channels, samples) by the effect's output; None where no signal was begun."""
        ...


def plugin_path() -> Path:
    """The VST3 bundle of this installation, for any host.

    Raises:
        MissingExtra: it was not built.
    """
    # By the installation, since an editable one keeps what was built apart from the sources.
    with suppress(metadata.PackageNotFoundError):
        installed = metadata.distribution("bsmamba2").locate_file(BUNDLE)
        if _library(found := Path(str(installed))).is_file():
            return found
    raise MissingExtra(
        "the VST3 was not built with this installation, so nothing of bsmamba2 can stand in "
        "Pedalboard's own containers: put a SeparationEffect into a bsmamba2_pedalboard.Board, "
        "which needs none, or install again on Linux with a C++17 compiler"
    )


def instances() -> int:
    """Instances of the VST3 alive in this process."""
    return int(_open().bsmamba2_instances())


@contextmanager
def loading(effect: Live) -> Iterator[int]:
    """Instances that this thread makes within belong to the effect, whose slot is yielded."""
    library = _open()
    slot = next(_numbers)
    _slots[slot] = effect
    library.bsmamba2_load(slot)
    try:
        yield slot
    except BaseException:
        del _slots[slot]
        raise
    finally:
        library.bsmamba2_load(0)
    library.bsmamba2_open(slot)


def set_state(slot: int, state: bytes) -> None:
    """What hosts save for the instance of this slot."""
    _open().bsmamba2_set_state(slot, state, len(state))


def get_state(slot: int) -> bytes:
    """What a host has given back for it, or what was set."""
    library = _open()
    buffer = ctypes.create_string_buffer(library.bsmamba2_get_state(slot, None, 0))
    library.bsmamba2_get_state(slot, buffer, len(buffer))
    return buffer.raw


_numbers = itertools.count(1)
_slots: dict[int, Live] = {}
_kept: list[type] = []


def _latency_samples(slot: int, sample_rate: float) -> int:
    return _slots[slot].latency_samples(sample_rate)


def _start(slot: int, sample_rate: float, channels: int) -> None:
    _slots[slot].start(sample_rate, channels)


def _process(slot: int, address: int | None, channels: int, samples: int) -> int | None:
    """None, or the address of a class that raises what went wrong."""
    try:
        block = None
        if address is not None:
            memory = (ctypes.c_float * (channels * samples)).from_address(address)
            block = np.ctypeslib.as_array(memory).reshape(channels, samples)
        _slots[slot].process(block)
    except BaseException as error:
        # Without this frame, whose arguments are the host's memory.
        return _keep(error.with_traceback(error.__traceback__ and error.__traceback__.tb_next))
    return None


def _closed(slot: int) -> None:
    """On the main thread, some time after the instance of the slot has gone."""
    _slots.pop(slot, None)


def _keep(error: BaseException) -> int:
    # Python takes a class to raise on a thread, and calls it; what it calls is this.
    def raised(cls: type) -> BaseException:
        _open().bsmamba2_raised()
        _kept.remove(cls)
        return error

    kept = type(type(error).__name__, (BaseException,), {"__new__": raised})
    _kept.append(kept)
    return id(kept)


_LATENCY = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_int32, ctypes.c_double)
_START = ctypes.CFUNCTYPE(None, ctypes.c_int32, ctypes.c_double, ctypes.c_int32)
_PROCESS = ctypes.CFUNCTYPE(
    ctypes.c_void_p, ctypes.c_int32, ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32
)
_CLOSED = ctypes.CFUNCTYPE(None, ctypes.c_int32)


class _Python(ctypes.Structure):
    """As Bsmamba2Python in native/python.h."""

    _fields_ = (
        ("latency_samples", _LATENCY),
        ("start", _START),
        ("process", _PROCESS),
        ("closed", _CLOSED),
        ("thread_state", ctypes.c_void_p),
        ("acquire", ctypes.c_void_p),
        ("release", ctypes.c_void_p),
        ("raise_later", ctypes.c_void_p),
        ("thread", ctypes.c_void_p),
        ("call_later", ctypes.c_void_p),
    )


_FUNCTIONS = _Python(
    _LATENCY(_latency_samples),
    _START(_start),
    _PROCESS(_process),
    _CLOSED(_closed),
    *(
        ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p)
        for name in (
            "PyGILState_GetThisThreadState",
            "PyGILState_Ensure",
            "PyGILState_Release",
            "PyThreadState_SetAsyncExc",
            "PyThread_get_thread_ident",
            "Py_AddPendingCall",
        )
    ),
)


@cache
def _open() -> ctypes.CDLL:
    library = ctypes.CDLL(str(_library(plugin_path())))
    library.bsmamba2_attach(ctypes.byref(_FUNCTIONS))
    atexit.register(library.bsmamba2_detach)
    return library


def _library(bundle: Path) -> Path:
    return bundle / "Contents" / f"{platform.machine()}-linux" / "bsmamba2.so"
