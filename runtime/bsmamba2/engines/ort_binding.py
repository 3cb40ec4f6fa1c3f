"""Runs an ONNX Runtime session with its inputs and outputs bound to memory on the device.

Only audio or spectra cross the bus, into buffers that keep their addresses. So a run of a repeated
shape can be recorded once as a CUDA graph and replayed, which saves about a thousand kernel
launches per chunk.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import LifoQueue, SimpleQueue
from typing import Any, TypeAlias

import numpy as np

from bsmamba2.audio.array import Audio
from bsmamba2.audio.snr import snr_db
from bsmamba2.devices.capture import CAPTURE, Held
from bsmamba2.devices.cuda_memory import CudaStream, PinnedBuffer

log = logging.getLogger("bsmamba2")

REPEATS = 3
"""Runs of one shape before it is recorded."""
SLOTS = 2
"""Callers whose inputs are in pinned memory: one is computed, and the next waits."""
REPLAY_DB = 90.0
"""The SNR that a replay must reach against a plain run."""

_GRAPH, _NO_GRAPH = "1", "-1"  # ONNX Runtime's gpu_graph_id

Values: TypeAlias = list[Audio]
Call: TypeAlias = tuple["Future[Values]", Callable[[Values], Values], Values]
"""The future for the result, the function, and its argument."""
Calls: TypeAlias = "SimpleQueue[Call | None]"
"""Calls for the session's thread. None ends it."""


class BoundSession:
    """A session with as many outputs as inputs, whose sizes are equal apart from the stems' axis.

    Threads may share it. Their runs take turns, since there is one set of buffers, and all happen
    in one thread of the session: ONNX Runtime keeps handles of CUDA's libraries and recorded graphs
    per thread, as long as the session exists, so otherwise every calling thread would record a
    graph and hold memory of the card for it.

    Args:
        ort: the onnxruntime package.
        session: an ``onnxruntime.InferenceSession``.
        memory: ONNX Runtime's name for the device's memory, and its index: ``("cuda", 0)``.
        stems: number of stems, the second size of the output.
        stream: the CUDA stream that the session was opened with. With it, callers copy their inputs
            into pinned memory, of which there are :data:`SLOTS`, while another run is computed, and
            copies to and from the card are enqueued on the stream. Without it they are synchronous.
    """

    def __init__(
        self,
        ort: Any,
        session: Any,
        memory: tuple[str, int],
        stems: int,
        stream: CudaStream | None = None,
    ) -> None:
        self._ort, self._held, self._memory, self._stems = ort, Held(stream, session), memory, stems
        self._slots: LifoQueue[list[PinnedBuffer]] = LifoQueue()
        if stream is not None:
            for _ in range(SLOTS):
                self._slots.put([PinnedBuffer(stream) for _ in session.get_inputs()])
        options = session.get_provider_options().values()
        self._may_record = any(given.get("enable_cuda_graph") == "1" for given in options)
        self._recorded: _Buffers | None = None
        self._plain: _Buffers | None = None
        self._runs = 0  # with the plain buffers
        self._calls: Calls = SimpleQueue()
        # A ThreadPoolExecutor would accept no calls once the main thread has ended.
        threading.Thread(target=_serve, args=(self._calls,), daemon=True).start()
        weakref.finalize(self, self._calls.put, None)

    def run(self, values: Sequence[Audio]) -> Values:
        """Runs inputs (batch, …) to outputs (batch, stems, …). Errors of ONNX Runtime propagate."""
        if self._held.objects[0] is None:
            return self._call(list(values))
        slot = self._slots.get()  # waits for a free one
        try:
            return self._call(self._pinned_copies(slot, values))
        finally:
            self._slots.put(slot)

    def _pinned_copies(self, slot: list[PinnedBuffer], values: Sequence[Audio]) -> Values:
        with CAPTURE.using():  # a buffer may grow
            self._held.objects[0].enter()
            copies = [buffer.array(value.shape) for buffer, value in zip(slot, values, strict=True)]
        for copy, value in zip(copies, values, strict=True):
            copy[...] = value
        return copies

    def _call(self, values: Values) -> Values:
        stems: Future[Values] = Future()
        self._calls.put((stems, self._run, values))
        return stems.result()

    def _run(self, values: Values) -> Values:
        with CAPTURE.using():
            stems = self._run_once(values)
        if self._may_record and self._runs == REPEATS:
            with CAPTURE.recording():
                self._record(values, stems)
        return stems

    def _run_once(self, values: Values) -> Values:
        """Replays the recorded run, if it has these shapes, or runs the session."""
        shapes = [value.shape for value in values]
        if self._recorded is not None and self._recorded.shapes == shapes:
            return self._recorded.run(values, _GRAPH)
        if self._plain is None or self._plain.shapes != shapes:
            self._plain = None  # frees the old buffers before the new ones are allocated
            self._runs = 0
            self._plain = _Buffers(self, shapes)
        stems = self._plain.run(values, _NO_GRAPH)
        self._runs += 1
        return stems

    def _record(self, values: Values, expected: Values) -> None:
        """Records a run; keeps the graph if a replay agrees with a plain run."""
        self._may_record = False  # only one shape is recorded, in one attempt
        buffers = self._plain
        assert buffers is not None
        try:
            buffers.run(values, _GRAPH)
            pairs = zip(expected, buffers.run(values, _GRAPH), strict=True)
            replayed = min(snr_db(plain, replay) for plain, replay in pairs)
        except Exception as error:  # the binding raises bare exceptions of many classes
            log.warning("CUDA graphs are not used, because recording one failed: %s", error)
            self._plain = None
            return
        if replayed >= REPLAY_DB:
            self._recorded, self._plain = buffers, None
        else:
            log.warning(
                "CUDA graphs are not used: a replay agrees with a plain run only to %.0f dB",
                replayed,
            )


def _serve(calls: Calls) -> None:
    """Executes calls one after the other, until the session is garbage-collected."""
    while (call := calls.get()) is not None:
        result, run, values = call
        try:
            result.set_result(run(values))
        except BaseException as error:  # raised where the caller waits for the result
            result.set_exception(error)
        del call, result, run, values  # otherwise this thread would keep the session alive


class _Buffers:
    """Inputs and outputs of one shape on the device, bound to the session."""

    def __init__(self, bound: BoundSession, shapes: list[tuple[int, ...]]) -> None:
        make = bound._ort.OrtValue.ortvalue_from_shape_and_type
        self.shapes = shapes
        self._ort, (self._stream, session) = bound._ort, bound._held.objects
        inputs = [make(shape, np.float32, *bound._memory) for shape in shapes]
        outputs = [
            make((shape[0], bound._stems, *shape[1:]), np.float32, *bound._memory)
            for shape in shapes
        ]
        binding = session.io_binding()
        for known, value in zip(session.get_inputs(), inputs, strict=True):
            binding.bind_ortvalue_input(known.name, value)
        for known, value in zip(session.get_outputs(), outputs, strict=True):
            binding.bind_ortvalue_output(known.name, value)
        self._held = Held(session, inputs, outputs, binding)
        self._pinned = [PinnedBuffer(self._stream) for _ in outputs] if self._stream else []

    def run(self, values: Values, graph: str) -> Values:
        """Copies values to the card, runs the session, and copies its outputs back.

        With a stream the values must be in pinned memory.
        """
        session, inputs, outputs, binding = self._held.objects
        options = self._ort.RunOptions()
        options.add_run_config_entry("gpu_graph_id", graph)
        if self._stream is not None:
            return self._run_on_stream(values, options)
        for buffer, value in zip(inputs, values, strict=True):
            buffer.update_inplace(np.ascontiguousarray(value))
        session.run_with_iobinding(binding, options)
        # On the CPU an output is the buffer itself, which the next run overwrites.
        return [
            output.numpy().copy() if output.device_name() == "cpu" else output.numpy()
            for output in outputs
        ]

    def _run_on_stream(self, values: Values, options: Any) -> Values:
        """Enqueues the copies and the run, then waits once."""
        session, inputs, outputs, binding = self._held.objects
        stream = self._stream
        stream.enter()
        pinned = [b.array(o.shape()) for b, o in zip(self._pinned, outputs, strict=True)]
        for buffer, value in zip(inputs, values, strict=True):
            stream.upload(buffer.data_ptr(), value)
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        session.run_with_iobinding(binding, options)
        for array, output in zip(pinned, outputs, strict=True):
            stream.download(array, output.data_ptr())
        stream.wait()
        return [array.copy() for array in pinned]
