"""HTTP connections to a server of the KServe v2 protocol, with deadlines and retries."""

from __future__ import annotations

import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, TypeAlias, TypeVar

import numpy as np
from urllib3.exceptions import MaxRetryError
from urllib3.util import Retry

from bsmamba2.audio.array import Audio
from bsmamba2.errors import Error, ModelError
from bsmamba2_cluster.triton.failures import explain
from bsmamba2_cluster.triton.server_options import ServerOptions

T = TypeVar("T")
Request = Callable[[Any, dict[str, str]], T]
"""Sends one request: takes a client of tritonclient and the headers."""
Calls: TypeAlias = "SimpleQueue[_Call | None]"
"""What the threads of a connection have to do. None ends one of them."""

BACKOFF_S = 0.2
"""The wait before the second retry is twice this; it doubles with each further one."""


@dataclass(frozen=True)
class StreamPlace:
    """The place of a request in a stream whose states the server keeps."""

    stream: int
    """Number of the stream, not 0."""
    is_first: bool = False
    is_last: bool = False


class Connection:
    """Connections to one server; threads may share it.

    tritonclient's connections may only be used by the thread that opened them, so the requests run
    in threads of this object, each with a connection of its own. They end when the object is
    closed or no longer used.
    """

    def __init__(self, options: ServerOptions) -> None:
        self.options = options
        calls: Calls = SimpleQueue()
        self._calls = calls
        self._threads = [
            threading.Thread(target=_serve, args=(calls, options), daemon=True)
            for _ in range(options.connections)
        ]
        for thread in self._threads:
            thread.start()
        self._end = weakref.finalize(self, _end, calls, options.connections)

    def call(self, request: Request[T], model: str) -> T:
        """Sends a request that may be repeated; returns its result.

        Args:
            request: sends it.
            model: the model that it is about, for messages.

        Raises:
            ModelError: the server has no such model, or refuses the request.
            DeviceError: the server cannot be reached, or does not answer in time.
            MissingExtra: tritonclient is not installed.
        """
        result: T = self._submit(request, model, True).result()
        return result

    def infer(
        self,
        model: str,
        inputs: Mapping[str, Audio],
        outputs: Sequence[str],
        place: StreamPlace | None = None,
    ) -> Future[list[Audio]]:
        """Runs a model.

        A request with a place in a longer stream is sent only once: a second one would change the
        states twice.

        Args:
            model: its name on the server.
            inputs: float32, by their names.
            outputs: the names of the outputs to return.
            place: the place in a stream.

        Returns:
            The outputs, float32, in the order of their names; or the errors of :meth:`call`.
        """
        repeatable = place is None or (place.is_first and place.is_last)
        seconds = self.options.deadline_s

        def request(client: Any, headers: dict[str, str]) -> list[Audio]:
            from tritonclient.http import InferInput, InferRequestedOutput

            more: dict[str, Any] = {}
            if place is None:  # the scheduler of streams knows no time limit of a request
                more["timeout"] = int(seconds * 1e6)
            else:
                more["sequence_id"] = place.stream
                more["sequence_start"], more["sequence_end"] = place.is_first, place.is_last
            tensors = []
            for name, values in inputs.items():
                tensors.append(InferInput(name, list(values.shape), "FP32"))
                tensors[-1].set_data_from_numpy(np.ascontiguousarray(values, np.float32))
            wanted = [InferRequestedOutput(name) for name in outputs]
            result = client.infer(model, tensors, outputs=wanted, headers=headers, **more)
            return [_output(result, name, model) for name in outputs]

        return self._submit(request, model, repeatable)

    def close(self) -> None:
        """Ends the connections; requests in progress are completed."""
        self._end()
        for thread in self._threads:
            thread.join()

    def _submit(self, request: Request[Any], model: str, repeatable: bool) -> Future[Any]:
        call = _Call(request, model, repeatable)
        self._calls.put(call)
        return call.result


class _Call:
    """A request, and the future for its result."""

    def __init__(self, request: Request[Any], model: str, repeatable: bool) -> None:
        self.request, self.model, self.repeatable = request, model, repeatable
        self.result: Future[Any] = Future()


def _end(calls: Calls, threads: int) -> None:
    for _ in range(threads):
        calls.put(None)


def _serve(calls: Calls, options: ServerOptions) -> None:
    """Sends requests one after the other. It has no reference to the Connection, so that one that
    is no longer used is collected."""
    client = _Client(options)
    while (call := calls.get()) is not None:
        try:
            call.result.set_result(client.send(call))
        except BaseException as error:  # raised where the caller waits for the result
            call.result.set_exception(error)
        del call
    client.close()


class _Client:
    """A connection of one thread, which is opened again after a failure."""

    def __init__(self, options: ServerOptions) -> None:
        self._options = options
        self._open: Any = None

    def send(self, call: _Call) -> Any:
        """Sends a request, again after a temporary failure if it may be repeated."""
        options = self._options
        ends = time.monotonic() + options.deadline_s
        retries = options.retries if call.repeatable else 0
        policy = Retry(total=retries, backoff_factor=BACKOFF_S)
        while True:
            try:
                return self._send_once(call.request, ends - time.monotonic())
            except Error:
                raise
            except Exception as error:  # errors of sockets, gevent and tritonclient share no class
                self._drop()  # the connection may be in the middle of an answer
                failure = explain(error, options, call.model)
                try:
                    policy = policy.increment(error=error)
                except MaxRetryError:
                    raise failure.error from None
                late = time.monotonic() + policy.get_backoff_time() >= ends
                if late or not failure.is_temporary:
                    raise failure.error from None
            policy.sleep()

    def close(self) -> None:
        """Closes the connection, and gevent's loop of this thread if there is one."""
        self._drop()
        if "gevent" in sys.modules:
            import gevent

            gevent.get_hub().destroy(destroy_loop=True)

    def _send_once(self, request: Request[Any], seconds: float) -> Any:
        if self._open is None:
            self._open = self._options.new_client()
        import gevent  # a dependency of tritonclient

        with gevent.Timeout(max(0.001, seconds), TimeoutError):
            return request(self._open, dict(self._options.headers))

    def _drop(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None


def _output(result: Any, name: str, model: str) -> Audio:
    found = result.get_output(name)
    if found is None or found.get("datatype") != "FP32":
        kind = "no such output" if found is None else found.get("datatype")
        raise ModelError(
            f"the server's model {model!r} must return {name!r} as FP32; got {kind}: write its "
            "repository again with bsmamba2 triton"
        )
    values: Audio = result.as_numpy(name)
    return values.copy()  # the result is a view of the answer, which cannot be written
