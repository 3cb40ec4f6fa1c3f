"""HTTP connections to a server of the KServe v2 protocol, with deadlines and retries."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

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
    in threads of this object, each with a connection of its own.
    """

    def __init__(self, options: ServerOptions) -> None:
        self.options = options
        self._local = threading.local()
        self._pool = ThreadPoolExecutor(options.connections, "triton-client")

    def call(self, request: Request[T], model: str) -> T:
        """Sends a request that may be repeated; returns its result.

        Args:
            request: sends it.
            model: the model that it is about, for messages.

        Raises:
            ModelError: the server has no such model, or refuses the request.
            DeviceError: the server cannot be reached, or does not answer in time.
        """
        return self._pool.submit(self._attempts, request, model, True).result()

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

        return self._pool.submit(self._attempts, request, model, repeatable)

    def close(self) -> None:
        """Ends the connections; requests in progress are completed."""
        self._pool.shutdown()

    def _attempts(self, request: Request[T], model: str, repeatable: bool) -> T:
        """Sends a request, in a thread of the pool, and again if it may be repeated."""
        options = self.options
        ends = time.monotonic() + options.deadline_s
        policy = Retry(total=options.retries if repeatable else 0, backoff_factor=BACKOFF_S)
        while True:
            try:
                return self._attempt(request, ends - time.monotonic())
            except Error:
                raise
            except Exception as error:  # errors of sockets, gevent and tritonclient share no class
                self._local.client = None  # its connection may be in the middle of an answer
                failure = explain(error, options, model)
                try:
                    policy = policy.increment(error=error)
                except MaxRetryError:
                    raise failure.error from None
                late = time.monotonic() + policy.get_backoff_time() >= ends
                if late or not failure.is_temporary:
                    raise failure.error from None
            policy.sleep()

    def _attempt(self, request: Request[T], seconds: float) -> T:
        client = getattr(self._local, "client", None)
        if client is None:
            client = self._local.client = self.options.new_client()
        import gevent  # a dependency of tritonclient

        with gevent.Timeout(max(0.001, seconds), TimeoutError):
            return request(client, dict(self.options.headers))


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
