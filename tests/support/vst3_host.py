"""A small VST3 host, by ctypes alone: it calls the plugin's tables of functions as any host does.

Written from the description of the binary interface, apart from ``vst3.h``, so that both must be
right for a test to pass.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from ctypes import (
    CFUNCTYPE,
    POINTER,
    Structure,
    byref,
    c_char_p,
    c_double,
    c_int32,
    c_uint8,
    c_uint32,
    c_uint64,
    c_void_p,
)
from pathlib import Path

import numpy as np


def bundle():
    """The plugin to test: the installed one, or one built with sanitizers."""
    from bsmamba2_pedalboard import plugin_path

    return Path(os.environ.get("BSMAMBA2_TEST_BUNDLE") or plugin_path())


def iid(*words):
    return struct.pack(">4I", *words)


UNKNOWN = iid(0x00000000, 0x00000000, 0xC0000000, 0x00000046)
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

    def __init__(self, pointer, methods=()):
        self.pointer = c_void_p(pointer)
        self._places = {
            name: place for place, name in enumerate(("query", "add_ref", "release", *methods))
        }

    def call(self, name, *arguments, returns=c_int32):
        table = ctypes.cast(self.pointer, POINTER(POINTER(c_void_p)))[0]
        types = [type(argument) for argument in arguments]
        function = CFUNCTYPE(returns, c_void_p, *types)(table[self._places[name]])
        return function(self.pointer, *arguments)

    def query(self, identity, methods=()):
        """The other interface of the same object, or None."""
        found = c_void_p(1)
        result = self.call("query", c_char_p(identity), pointer_to(found))
        assert (result, found.value) == (NO_INTERFACE, None) or (result == OK and found.value)
        return Interface(found.value, methods) if found.value else None


def pointer_to(value):
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


class Made:
    """An object of the host's, whose functions are Python's; arguments are as ctypes gives them."""

    def __init__(self, *functions):
        types = [
            CFUNCTYPE(c_int32, c_void_p, c_void_p, c_void_p),
            CFUNCTYPE(c_uint32, c_void_p),
            CFUNCTYPE(c_uint32, c_void_p),
        ]
        own = [lambda *_: NO_INTERFACE, lambda *_: 1, lambda *_: 1]
        self._functions = [kind(work) for kind, work in zip(types, own, strict=True)]
        self._functions += [CFUNCTYPE(c_int32, c_void_p, *kinds)(work) for kinds, work in functions]
        self._table = (c_void_p * len(self._functions))(
            *(ctypes.cast(function, c_void_p) for function in self._functions)
        )
        self._object = c_void_p(ctypes.addressof(self._table))
        self.pointer = pointer_to(self._object)


class Memory(Made):
    """A stream of bytes."""

    def __init__(self, content=b""):
        self.content, self.place = bytearray(content), 0
        transfer = (c_void_p, c_int32, POINTER(c_int32))
        super().__init__((transfer, self._read), (transfer, self._write))

    def _read(self, _, buffer, size, done):
        part = bytes(self.content[self.place : self.place + size])
        ctypes.memmove(buffer, part, len(part))
        self.place += len(part)
        done[0] = len(part)
        return OK

    def _write(self, _, buffer, size, done):
        self.content += ctypes.string_at(buffer, size)
        done[0] = size
        return OK


class Handler(Made):
    """What a plugin tells its host: the flags of each restart it asks for."""

    def __init__(self):
        self.restarts = []
        one = (c_uint32,)
        ignore = (one, lambda *_: OK)
        restart = ((c_int32,), lambda _, flags: self.restarts.append(flags) or OK)
        super().__init__(ignore, ((c_uint32, c_double), lambda *_: OK), ignore, restart)


class Plugin:
    """One instance, with what a host does to it."""

    def __init__(self, bundle, channels=2):
        machine = platform.machine()
        self.library = ctypes.CDLL(str(bundle / "Contents" / f"{machine}-linux" / "bsmamba2.so"))
        self.library.GetPluginFactory.restype = c_void_p
        self.factory = Interface(self.library.GetPluginFactory(), FACTORY_METHODS)
        info = ctypes.create_string_buffer(440)
        assert self.factory.call("class_info2", c_int32(0), pointer_to(info)) == OK
        self.class_info = info.raw
        found = c_void_p()
        arguments = c_char_p(info.raw[:16]), c_char_p(COMPONENT), pointer_to(found)
        assert self.factory.call("create", *arguments) == OK
        self.component = Interface(found.value, COMPONENT_METHODS)
        self.processor = self.component.query(PROCESSOR, PROCESSOR_METHODS)
        self.controller = self.component.query(CONTROLLER, CONTROLLER_METHODS)
        self.handler = Handler()
        assert self.component.call("initialize", c_void_p()) == OK
        assert self.controller.call("set_handler", self.handler.pointer) == OK
        self.arrange(channels)
        self.active = False

    def arrange(self, channels):
        kind = c_uint64(MONO if channels == 1 else STEREO)
        assert self.set_arrangements(kind, kind) == OK
        self.channels = channels

    def set_arrangements(self, before, behind):
        one = c_int32(1)
        return self.processor.call(
            "set_bus_arrangements", pointer_to(before), one, pointer_to(behind), one
        )

    def start(self, rate=44100, max_samples=512, mode=REALTIME):
        self.stop()
        setup = Setup(mode, 0, max_samples, rate)
        assert self.processor.call("setup", pointer_to(setup)) == OK
        assert self.component.call("set_active", c_uint8(1)) == OK
        assert self.processor.call("set_processing", c_uint8(1)) == OK
        self.active = True
        return self.latency

    def stop(self):
        if self.active:
            assert self.processor.call("set_processing", c_uint8(0)) == OK
            assert self.component.call("set_active", c_uint8(0)) == OK
            self.active = False

    @property
    def latency(self):
        return self.processor.call("latency", returns=c_uint32)

    def process(self, audio, in_place=False, changes=None):
        """(channels, samples) through the plugin in one call."""
        audio = np.array(audio, np.float32, order="C")
        output = audio if in_place else np.full_like(audio, np.nan)
        buses, keep = [], []
        for block in (audio, output):
            rows = (c_void_p * len(block))(*(row.ctypes.data for row in block))
            keep.append(rows)
            buses.append(AudioBus(len(block), 0, ctypes.cast(rows, c_void_p)))
        data = Data(0, 0, audio.shape[1], 1, 1, *(pointer_to(bus) for bus in buses))
        if changes is not None:
            data.changes_in = changes.pointer.value
        assert self.processor.call("process", pointer_to(data)) == OK
        return output

    def save(self):
        memory = Memory()
        assert self.component.call("get_state", memory.pointer) == OK
        return bytes(memory.content)

    def load(self, state):
        memory = Memory(state)  # which must outlive the call
        return self.component.call("set_state", memory.pointer)

    def get(self, parameter):
        return self.controller.call("get", c_uint32(parameter), returns=c_double)

    def set(self, parameter, value):
        return self.controller.call("set", c_uint32(parameter), c_double(value))

    def close(self):
        self.stop()
        assert self.component.call("terminate") == OK
        for interface in (self.controller, self.processor, self.component):
            left = interface.call("release", returns=c_uint32)
        assert left == 0


class Queue(Made):
    """The values of one parameter in a block."""

    def __init__(self, parameter, value):
        def point(_, index, offset, place):
            offset[0], place[0] = 0, value
            return OK

        super().__init__(
            ((), lambda *_: parameter),
            ((), lambda *_: 1),
            ((c_int32, POINTER(c_int32), POINTER(c_double)), point),
        )


class Changes(Made):
    """Parameters that move in a block: ``Changes({1: 0.5})``."""

    def __init__(self, values):
        self._queues = [Queue(parameter, value) for parameter, value in values.items()]
        super().__init__(((), lambda *_: len(self._queues)))
        # This one returns a pointer.
        queue = CFUNCTYPE(c_void_p, c_void_p, c_int32)(
            lambda _, index: self._queues[index].pointer.value
        )
        self._functions.append(queue)
        self._table = (c_void_p * 5)(
            *(ctypes.cast(function, c_void_p) for function in self._functions)
        )
        self._object = c_void_p(ctypes.addressof(self._table))
        self.pointer = pointer_to(self._object)


def text(letters):
    """A string of 16-bit letters."""
    return "".join(chr(letter) for letter in letters).split("\0")[0]
