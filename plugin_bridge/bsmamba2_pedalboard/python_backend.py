"""Our VST3 in this process: its path, and the connection of its instances to their effects.

Pedalboard loads the library; ctypes opens the same file, so both see the same globals. An instance
belongs to the slot that is set while it is created, and ``_slots`` has the effect of each slot.
Callbacks run on the thread that called Pedalboard. An exception cannot pass through the host, so
Python raises it on that thread as soon as the thread is back in Python.
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


class PluginCallbacks(Protocol):
    """The functions that an instance of the plugin calls."""

    def latency_samples(self, sample_rate: float) -> int:
        """Returns the latency of signals with this rate."""
        ...

    def start(self, sample_rate: float, channels: int) -> None:
        """Starts a new signal. It never raises: the next ``process`` raises the error instead."""
        ...

    def process(self, block: Audio | None) -> None:
        """Overwrites (channels, samples) with the output; None if no signal was started."""
        ...


def plugin_path() -> Path:
    """Returns the path of this installation's VST3 bundle, for any host.

    Raises:
        MissingExtra: it was not built.
    """
    # From the metadata, because an editable installation builds outside the source folder.
    with suppress(metadata.PackageNotFoundError):
        bundle = Path(str(metadata.distribution("bsmamba2").locate_file(BUNDLE)))
        if _library(bundle).is_file():
            return bundle
    raise MissingExtra(
        "the VST3 was not built with this installation, and Pedalboard's own containers need it: "
        "put a SeparationEffect into a bsmamba2_pedalboard.Board, which works without it, or "
        "install again on Linux with a C++17 compiler"
    )


def instances() -> int:
    """Returns how many instances of the VST3 are alive in this process."""
    return int(_open().bsmamba2_instances())


@contextmanager
def loading(callbacks: PluginCallbacks) -> Iterator[int]:
    """Connects the instance that this thread creates inside to the callbacks; yields its slot."""
    library = _open()
    slot = next(_numbers)
    _slots[slot] = callbacks
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
    """Sets the state that hosts save for the slot's instance."""
    _open().bsmamba2_set_state(slot, state, len(state))


def get_state(slot: int) -> bytes:
    """Returns the state of the slot's instance that a host restored or :func:`set_state` set."""
    library = _open()
    buffer = ctypes.create_string_buffer(library.bsmamba2_get_state(slot, None, 0))
    library.bsmamba2_get_state(slot, buffer, len(buffer))
    return buffer.raw


_numbers = itertools.count(1)
_slots: dict[int, PluginCallbacks] = {}
_pending: list[type] = []
"""Exception classes that Python has yet to raise; the list keeps them alive."""


def _latency_samples(slot: int, sample_rate: float) -> int:
    return _slots[slot].latency_samples(sample_rate)


def _start(slot: int, sample_rate: float, channels: int) -> None:
    _slots[slot].start(sample_rate, channels)


def _process(slot: int, address: int | None, channels: int, samples: int) -> int | None:
    """Returns None, or the address of an exception class for the plugin to raise in Python."""
    try:
        block = None
        if address is not None:
            memory = (ctypes.c_float * (channels * samples)).from_address(address)
            block = np.ctypeslib.as_array(memory).reshape(channels, samples)
        _slots[slot].process(block)
    except BaseException as error:
        # The traceback leaves out this frame, whose arguments point into the host's memory.
        return _raise_later(
            error.with_traceback(error.__traceback__ and error.__traceback__.tb_next)
        )
    return None


def _closed(slot: int) -> None:
    """Called on the main thread, some time after the slot's instance was destroyed."""
    _slots.pop(slot, None)


def _raise_later(error: BaseException) -> int:
    # To raise an exception on another thread, Python takes a class and instantiates it there. This
    # class returns the error instead of a new instance. If that thread is handling another
    # exception, Python instantiates the class twice, the second time with the error.
    def raised(cls: type, *_: object) -> BaseException:
        if cls in _pending:
            _open().bsmamba2_raised()
            _pending.remove(cls)
        return error

    pending = type(type(error).__name__, (BaseException,), {"__new__": raised})
    _pending.append(pending)
    return id(pending)


_LATENCY = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_int32, ctypes.c_double)
_START = ctypes.CFUNCTYPE(None, ctypes.c_int32, ctypes.c_double, ctypes.c_int32)
_PROCESS = ctypes.CFUNCTYPE(
    ctypes.c_void_p, ctypes.c_int32, ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32
)
_CLOSED = ctypes.CFUNCTYPE(None, ctypes.c_int32)


class _Python(ctypes.Structure):
    """``Bsmamba2Python`` of native/python.h."""

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
