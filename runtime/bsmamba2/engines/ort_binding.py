"""Runs an ONNX Runtime session with its input and output bound to memory on the device.

Only audio or spectra cross the bus, into buffers that keep their addresses. So a run of a repeated
shape can be recorded once as a CUDA graph and replayed, which saves about a thousand kernel
launches per chunk.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeAlias

import numpy as np

from bsmamba2.audio.array import Audio
from bsmamba2.audio.snr import snr_db

log = logging.getLogger("bsmamba2")

REPEATS = 3
"""Runs of one shape before it is recorded."""
REPLAY_DB = 90.0
"""The SNR that a replay must reach against a plain run."""

_GRAPH, _NO_GRAPH = "1", "-1"  # ONNX Runtime's gpu_graph_id

Calls: TypeAlias = "SimpleQueue[tuple[Future[Audio], Callable[[Audio], Audio], Audio] | None]"
"""Each call: the future for its result, the function, and its argument. None ends the thread."""


class BoundSession:
    """A session with one input and one output, whose sizes are equal apart from the stems' axis.

    Threads may share it. Their runs take turns, since there is one set of buffers, and all happen
    in one thread of the session: ONNX Runtime keeps handles of CUDA's libraries and recorded graphs
    per thread, as long as the session exists, so otherwise every calling thread would record a
    graph and hold memory of the card for it.

    Args:
        ort: the onnxruntime package.
        session: an ``onnxruntime.InferenceSession``.
        memory: ONNX Runtime's name for the device's memory, and its index: ``("cuda", 0)``.
        stems: number of stems, the second size of the output.
    """

    def __init__(self, ort: Any, session: Any, memory: tuple[str, int], stems: int) -> None:
        self._ort, self._session, self._memory, self._stems = ort, session, memory, stems
        options = session.get_provider_options().values()
        self._may_record = any(given.get("enable_cuda_graph") == "1" for given in options)
        self._recorded: _Buffers | None = None
        self._plain: _Buffers | None = None
        self._runs = 0  # with the plain buffers
        self._calls: Calls = SimpleQueue()
        # A ThreadPoolExecutor would accept no calls once the main thread has ended.
        threading.Thread(target=_serve, args=(self._calls,), daemon=True).start()
        weakref.finalize(self, self._calls.put, None)

    def run(self, values: Audio) -> Audio:
        """Runs (batch, …) to (batch, stems, …). Errors of ONNX Runtime propagate."""
        stems: Future[Audio] = Future()
        self._calls.put((stems, self._run, values))
        return stems.result()

    def _run(self, values: Audio) -> Audio:
        if self._recorded is not None and self._recorded.shape == values.shape:
            return self._recorded.run(values, _GRAPH)
        if self._plain is None or self._plain.shape != values.shape:
            self._plain = None  # frees the old buffers before the new ones are allocated
            self._runs = 0
            self._plain = _Buffers(self, values.shape)
        stems = self._plain.run(values, _NO_GRAPH)
        self._runs += 1
        if self._may_record and self._runs == REPEATS:
            self._record(self._plain, values, stems)
        return stems

    def _record(self, buffers: _Buffers, values: Audio, expected: Audio) -> None:
        """Records a run of these buffers; keeps the graph if a replay agrees with a plain run."""
        self._may_record = False  # only one shape is recorded, in one attempt
        try:
            buffers.run(values, _GRAPH)
            replayed = snr_db(expected, buffers.run(values, _GRAPH))
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
    """Input and output of one shape on the device, bound to the session."""

    def __init__(self, bound: BoundSession, shape: tuple[int, ...]) -> None:
        make = bound._ort.OrtValue.ortvalue_from_shape_and_type
        self.shape = shape
        self._ort, self._session = bound._ort, bound._session
        self._input = make(shape, np.float32, *bound._memory)
        stems = (shape[0], bound._stems, *shape[1:])
        self._output = make(stems, np.float32, *bound._memory)
        self._binding = self._session.io_binding()
        self._binding.bind_ortvalue_input(self._session.get_inputs()[0].name, self._input)
        self._binding.bind_ortvalue_output(self._session.get_outputs()[0].name, self._output)

    def run(self, values: Audio, graph: str) -> Audio:
        options = self._ort.RunOptions()
        options.add_run_config_entry("gpu_graph_id", graph)
        self._input.update_inplace(np.ascontiguousarray(values))
        self._session.run_with_iobinding(self._binding, options)
        stems: Audio = self._output.numpy()
        # On the CPU this is the buffer itself, which the next run overwrites.
        return stems.copy() if self._output.device_name() == "cpu" else stems
