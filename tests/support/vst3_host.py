"""A small VST3 host in ctypes: it calls the plugin through its function tables, as hosts do."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from ctypes import (
    CFUNCTYPE,
    POINTER,
    c_char_p,
    c_double,
    c_int32,
    c_uint8,
    c_uint32,
    c_uint64,
    c_void_p,
)
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from bsmamba2.audio.array import Audio
from support.vst3_abi import (
    APPLICATION,
    COMPONENT,
    COMPONENT_METHODS,
    CONTROLLER,
    CONTROLLER_METHODS,
    FACTORY_METHODS,
    MISSED,
    MONO,
    NO_INTERFACE,
    OK,
    PROCESSOR,
    PROCESSOR_METHODS,
    REALTIME,
    STEREO,
    AudioBus,
    BusInfo,
    Data,
    Interface,
    ParameterInfo,
    Setup,
    pointer_to,
    text,
)

Function: TypeAlias = tuple[Sequence[Any], Callable[..., Any]]
"""The types of a function's arguments after the object, and the function."""


def bundle() -> Path:
    """The plugin to test: ``BSMAMBA2_TEST_BUNDLE`` (for sanitizers) or the installed one."""
    from bsmamba2_pedalboard import plugin_path

    return Path(os.environ.get("BSMAMBA2_TEST_BUNDLE") or plugin_path())


class HostObject:
    """An object of the host with functions in Python, which get the arguments from ctypes."""

    def __init__(self, *functions: Function) -> None:
        types = [
            CFUNCTYPE(c_int32, c_void_p, c_void_p, c_void_p),
            CFUNCTYPE(c_uint32, c_void_p),
            CFUNCTYPE(c_uint32, c_void_p),
        ]
        own: list[Callable[..., int]] = [self._query, lambda *_: 1, lambda *_: 1]
        self._functions: list[Any] = [kind(work) for kind, work in zip(types, own, strict=True)]
        self._functions += [CFUNCTYPE(c_int32, c_void_p, *kinds)(work) for kinds, work in functions]
        self._table = (c_void_p * len(self._functions))(
            *(ctypes.cast(function, c_void_p) for function in self._functions)
        )
        self._object = c_void_p(ctypes.addressof(self._table))
        self.pointer = pointer_to(self._object)

    def _query(self, _: Any, wanted: int, place: int) -> int:
        return NO_INTERFACE


class Application(HostObject):
    """Tells a plugin the host's name."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(((c_void_p,), self._name))

    def _query(self, _: Any, wanted: int, place: int) -> int:
        if ctypes.string_at(wanted, 16) != APPLICATION:
            return NO_INTERFACE
        ctypes.cast(place, POINTER(c_void_p))[0] = self.pointer
        return OK

    def _name(self, _: Any, place: int) -> int:
        ctypes.memmove(place, (self.name + "\0").encode("utf-16-le"), 2 * len(self.name) + 2)
        return OK


class Memory(HostObject):
    """A stream of bytes."""

    def __init__(self, content: bytes = b"") -> None:
        self.content, self.place = bytearray(content), 0
        transfer = (c_void_p, c_int32, POINTER(c_int32))
        super().__init__((transfer, self._read), (transfer, self._write))

    def _read(self, _: Any, buffer: Any, size: int, done: Any) -> int:
        part = bytes(self.content[self.place : self.place + size])
        ctypes.memmove(buffer, part, len(part))
        self.place += len(part)
        done[0] = len(part)
        return OK

    def _write(self, _: Any, buffer: Any, size: int, done: Any) -> int:
        self.content += ctypes.string_at(buffer, size)
        done[0] = size
        return OK


class Handler(HostObject):
    """Receives the requests of a plugin, and keeps the flags of each restart that it requests."""

    def __init__(self) -> None:
        self.restarts: list[int] = []
        one = (c_uint32,)
        ignore: Function = (one, lambda *_: OK)
        restart: Function = ((c_int32,), self._restart)
        super().__init__(ignore, ((c_uint32, c_double), lambda *_: OK), ignore, restart)

    def _restart(self, _: Any, flags: int) -> int:
        self.restarts.append(flags)
        return OK


class Plugin:
    """One instance of the plugin, and what a host does with it."""

    def __init__(self, bundle: Path, channels: int = 2, name: str = "a host") -> None:
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
        self.processor = self.component.require(PROCESSOR, PROCESSOR_METHODS)
        self.controller = self.component.require(CONTROLLER, CONTROLLER_METHODS)
        self.handler = Handler()
        self.application = Application(name)
        assert self.component.call("initialize", self.application.pointer) == OK
        assert self.controller.call("set_handler", self.handler.pointer) == OK
        self.arrange(channels)
        self.active = False

    def arrange(self, channels: int) -> None:
        kind = c_uint64(MONO if channels == 1 else STEREO)
        assert self.set_arrangements(kind, kind) == OK
        self.channels = channels

    def set_arrangements(self, inputs: c_uint64, *outputs: c_uint64) -> int:
        array = (c_uint64 * len(outputs))(*(output.value for output in outputs))
        result: int = self.processor.call(
            *("set_bus_arrangements", pointer_to(inputs), c_int32(1)),
            *(pointer_to(array), c_int32(len(outputs))),
        )
        return result

    def bus_name(self, index: int) -> str:
        """The name of an output."""
        info = BusInfo()
        place = c_int32(0), c_int32(1), c_int32(index)
        assert self.component.call("bus_info", *place, pointer_to(info)) == OK
        return text(info.name)

    def enable(self, index: int, on: bool = True) -> None:
        """Activates an output."""
        place = c_int32(0), c_int32(1), c_int32(index), c_uint8(on)
        assert self.component.call("activate_bus", *place) == OK

    def start(self, rate: float = 44100, max_samples: int = 512, mode: int = REALTIME) -> int:
        """Starts processing; returns the latency."""
        self.stop()
        setup = Setup(mode, 0, max_samples, rate)
        assert self.processor.call("setup", pointer_to(setup)) == OK
        assert self.component.call("set_active", c_uint8(1)) == OK
        assert self.processor.call("set_processing", c_uint8(1)) == OK
        self.active = True
        return self.latency

    def stop(self) -> None:
        if self.active:
            assert self.processor.call("set_processing", c_uint8(0)) == OK
            assert self.component.call("set_active", c_uint8(0)) == OK
            self.active = False

    @property
    def latency(self) -> int:
        samples: int = self.processor.call("latency", returns=c_uint32)
        return samples

    def process(
        self,
        audio: npt.ArrayLike,
        in_place: bool = False,
        changes: Changes | None = None,
        mode: int = REALTIME,
    ) -> Audio:
        """Processes (channels, samples) in one call; returns the main output."""
        block_in = np.array(audio, np.float32, order="C")
        output = block_in if in_place else np.full_like(block_in, np.nan)
        self._process(block_in, [output], changes, mode)
        return output

    def process_buses(self, audio: npt.ArrayLike, buses: int, mode: int = REALTIME) -> Audio:
        """Processes (channels, samples); returns all outputs, (buses, channels, samples)."""
        block_in = np.array(audio, np.float32, order="C")
        outputs = np.full((buses, *block_in.shape), np.nan, np.float32)
        self._process(block_in, list(outputs), None, mode)
        return outputs

    def _process(
        self, block_in: Audio, outputs: list[Audio], changes: Changes | None, mode: int
    ) -> None:
        blocks = [block_in, *outputs]
        rows = [(c_void_p * len(block))(*(row.ctypes.data for row in block)) for block in blocks]
        buses = (AudioBus * len(blocks))(
            *(AudioBus(len(row), 0, ctypes.cast(row, c_void_p)) for row in rows)
        )
        data = Data(mode, 0, block_in.shape[1], 1, len(outputs))
        data.inputs = ctypes.addressof(buses)
        data.outputs = ctypes.addressof(buses) + ctypes.sizeof(AudioBus)
        if changes is not None:
            data.changes_in = changes.pointer.value
        self.reported = Reported()
        data.changes_out = self.reported.pointer.value
        assert self.processor.call("process", pointer_to(data)) == OK

    def info(self, parameter: int) -> ParameterInfo:
        """The description of a parameter."""
        info = ParameterInfo()
        assert self.controller.call("parameter_info", c_int32(parameter), pointer_to(info)) == OK
        return info

    def shown(self, parameter: int, value: float | None = None) -> str:
        """The text of a value; default: the current one."""
        letters = (ctypes.c_uint16 * 128)()
        number = c_uint32(parameter)
        current = c_double(self.get(parameter) if value is None else value)
        assert self.controller.call("text_of", number, current, pointer_to(letters)) == OK
        return text(letters)

    def last_step(self, parameter: int) -> int:
        """The plain value of 1: the last index of a list."""
        arguments = c_uint32(parameter), c_double(1.0)
        return int(self.controller.call("plain_of", *arguments, returns=c_double))

    def texts(self, parameter: int) -> list[str]:
        """The texts of all values of a list."""
        steps = self.last_step(parameter)
        return [self.shown(parameter, step / max(1, steps)) for step in range(steps + 1)]

    def choose(self, parameter: int, shown: str) -> None:
        """Sets a list to the value with this text."""
        steps = self.last_step(parameter)
        assert self.set(parameter, self.texts(parameter).index(shown) / max(1, steps)) == OK

    @property
    def missed(self) -> int:
        """The plugin's count of blocks that were output without stems."""
        return int(self.shown(MISSED))

    def save(self) -> bytes:
        memory = Memory()
        assert self.component.call("get_state", memory.pointer) == OK
        return bytes(memory.content)

    def load(self, state: bytes) -> int:
        memory = Memory(state)  # it must outlive the call
        result: int = self.component.call("set_state", memory.pointer)
        return result

    def get(self, parameter: int) -> float:
        value: float = self.controller.call("get", c_uint32(parameter), returns=c_double)
        return value

    def set(self, parameter: int, value: float) -> int:
        result: int = self.controller.call("set", c_uint32(parameter), c_double(value))
        return result

    def close(self) -> None:
        self.stop()
        assert self.component.call("terminate") == OK
        for interface in (self.controller, self.processor, self.component):
            references = interface.call("release", returns=c_uint32)
        assert references == 0


class Queue(HostObject):
    """The values of one parameter in a block, by the sample at which they begin."""

    def __init__(self, parameter: int, points: Mapping[int, float]) -> None:
        self.points = dict(points)

        def point(_: Any, index: int, offset: Any, place: Any) -> int:
            offset[0], place[0] = list(self.points.items())[index]
            return OK

        def add(_: Any, offset: int, value: float, index: Any) -> int:
            self.points[offset] = value
            index[0] = len(self.points) - 1
            return OK

        super().__init__(
            ((), lambda *_: parameter),
            ((), lambda *_: len(self.points)),
            ((c_int32, POINTER(c_int32), POINTER(c_double)), point),
            ((c_int32, c_double, POINTER(c_int32)), add),
        )


class Changes(HostObject):
    """Parameters that change in a block: ``Changes({1: 0.5})``, or ``Changes({1: {64: 0.5}})``."""

    def __init__(self, values: Mapping[int, float | Mapping[int, float]]) -> None:
        self.queues = {
            parameter: Queue(parameter, value if isinstance(value, Mapping) else {0: value})
            for parameter, value in values.items()
        }
        super().__init__(((), lambda *_: len(self.queues)))
        # These return a pointer.
        queue = CFUNCTYPE(c_void_p, c_void_p, c_int32)(
            lambda _, index: list(self.queues.values())[index].pointer.value
        )
        add = CFUNCTYPE(c_void_p, c_void_p, POINTER(c_uint32), POINTER(c_int32))(self._add)
        self._functions += [queue, add]
        self._table = (c_void_p * 6)(
            *(ctypes.cast(function, c_void_p) for function in self._functions)
        )
        self._object = c_void_p(ctypes.addressof(self._table))
        self.pointer = pointer_to(self._object)

    def _add(self, _: Any, parameter: Any, index: Any) -> int | None:
        index[0] = len(self.queues)
        queue = self.queues[parameter[0]] = Queue(parameter[0], {})
        return queue.pointer.value


class Reported(Changes):
    """The parameters that the plugin changes in a block."""

    def __init__(self) -> None:
        super().__init__({})

    @property
    def values(self) -> dict[int, float]:
        """The last value of each parameter."""
        return {number: list(queue.points.values())[-1] for number, queue in self.queues.items()}
