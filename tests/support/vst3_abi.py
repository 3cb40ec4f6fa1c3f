"""The binary interface of VST3 in ctypes: identities, tables of functions, structures.

It was written from the description of the interface, not from ``vst3.h``, so a test passes only
if both are right.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence
from ctypes import (
    CFUNCTYPE,
    POINTER,
    Structure,
    byref,
    c_char_p,
    c_double,
    c_int32,
    c_uint32,
    c_uint64,
    c_void_p,
)
from typing import Any


def iid(*words: int) -> bytes:
    """Returns the bytes of an interface's identity."""
    return struct.pack(">4I", *words)


UNKNOWN = iid(0x00000000, 0x00000000, 0xC0000000, 0x00000046)
APPLICATION = iid(0x58E595CC, 0xDB2D4969, 0x8B6AAF8C, 0x36A664E5)
FACTORY = iid(0x7A4D811C, 0x52114A1F, 0xAED9D2EE, 0x0B43BF9F)
FACTORY2 = iid(0x0007B650, 0xF24B4C0B, 0xA464EDB9, 0xF00B2ABB)
BASE = iid(0x22888DDB, 0x156E45AE, 0x8358B348, 0x08190625)
COMPONENT = iid(0xE831FF31, 0xF2D54301, 0x928EBBEE, 0x25697802)
PROCESSOR = iid(0x42043F99, 0xB7DA453C, 0xA569E79D, 0x9AAEC33D)
CONTROLLER = iid(0xDCD7BBE3, 0x7742448D, 0xA874AACC, 0x979C759E)
STRANGE = iid(1, 2, 3, 4)

OK, NO_INTERFACE, NO, INVALID = 0, -1, 1, 2
STEREO, MONO = 3, 1 << 19
REALTIME, OFFLINE = 0, 2
GAIN, MIX, STEM, WAIT, WAITING, MODEL, LOOKAHEAD, MISSED = range(8)
"""The plugin's parameters."""
UNPROCESSED, SILENCE_IN_RENDERS, SILENCE = 0.0, 0.5, 1.0
"""Values of WAITING."""

FACTORY_METHODS = ["info", "count", "class_info", "create", "class_info2"]
COMPONENT_METHODS = [
    *("initialize", "terminate", "controller_class", "set_io_mode", "bus_count", "bus_info"),
    *("routing_info", "activate_bus", "set_active", "set_state", "get_state"),
]
PROCESSOR_METHODS = [
    *("set_bus_arrangements", "bus_arrangement", "can_process", "latency", "setup"),
    *("set_processing", "process", "tail"),
]
CONTROLLER_METHODS = [
    *("initialize", "terminate", "set_component_state", "set_state", "get_state"),
    *("parameter_count", "parameter_info", "text_of", "value_of", "plain_of", "normalised_of"),
    *("get", "set", "set_handler", "create_view"),
]


class Interface:
    """A pointer to a table of functions, called by name."""

    def __init__(self, pointer: int | None, methods: Sequence[str] = ()) -> None:
        self.pointer = c_void_p(pointer)
        self._places = {
            name: place for place, name in enumerate(("query", "add_ref", "release", *methods))
        }

    def call(self, name: str, *arguments: Any, returns: Any = c_int32) -> Any:
        """Calls a function; the arguments are ctypes values."""
        table = ctypes.cast(self.pointer, POINTER(POINTER(c_void_p)))[0]
        types = [type(argument) for argument in arguments]
        function = CFUNCTYPE(returns, c_void_p, *types)(table[self._places[name]])
        return function(self.pointer, *arguments)

    def query(self, identity: bytes, methods: Sequence[str] = ()) -> Interface | None:
        """Returns another interface of the same object; None if the object does not have it."""
        found = c_void_p(1)
        result = self.call("query", c_char_p(identity), pointer_to(found))
        assert (result, found.value) == (NO_INTERFACE, None) or (result == OK and found.value)
        return Interface(found.value, methods) if found.value else None

    def require(self, identity: bytes, methods: Sequence[str] = ()) -> Interface:
        """Does the same as :meth:`query`, for an interface that must exist."""
        found = self.query(identity, methods)
        assert found is not None
        return found


def pointer_to(value: Any) -> c_void_p:
    return ctypes.cast(byref(value), c_void_p)


class BusInfo(Structure):
    _fields_ = (
        *((name, c_int32) for name in ("media", "direction", "channels")),
        ("name", ctypes.c_uint16 * 128),
        ("type", c_int32),
        ("flags", c_uint32),
    )


class Setup(Structure):
    _fields_ = (
        *((name, c_int32) for name in ("mode", "sample_size", "max_samples")),
        ("rate", c_double),
    )


class AudioBus(Structure):
    _fields_ = (("channels", c_int32), ("silence", c_uint64), ("samples", c_void_p))


class Data(Structure):
    _fields_ = (
        *((name, c_int32) for name in ("mode", "sample_size", "samples", "ins", "outs")),
        ("inputs", c_void_p),
        ("outputs", c_void_p),
        *((name, c_void_p) for name in ("changes_in", "changes_out", "ev_in", "ev_out", "context")),
    )


class ParameterInfo(Structure):
    _fields_ = (
        ("id", c_uint32),
        *((name, ctypes.c_uint16 * 128) for name in ("title", "short_title", "units")),
        ("steps", c_int32),
        ("initial", c_double),
        ("unit", c_int32),
        ("flags", c_int32),
    )


def text(letters: Any) -> str:
    """Returns the text in an array of 16-bit characters, up to the first zero."""
    return "".join(chr(letter) for letter in letters).split("\0")[0]
