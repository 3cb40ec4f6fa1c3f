"""One connection of the server: the plugin's messages, and the stems that it gets back.

``native/server_backend.cpp`` documents the protocol.
"""

from __future__ import annotations

import hmac
import logging
import math
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import numpy as np

from bsmamba2 import Error, Stems
from bsmamba2.audio.array import Audio
from bsmamba2.audio.fifo import Fifo
from bsmamba2_pedalboard.offered_models import FADE_SAMPLES, OfferedModels, Served
from bsmamba2_pedalboard.offers import Offer

log = logging.getLogger("bsmamba2.serve")

MAGIC = b"bsm2"
VERSION = 2
HELLO = struct.Struct("<4sIdII32s128s")
WELCOME = struct.Struct("<4sIIIII")
REQUEST_HEADER = struct.Struct("<II")
RESPONSE_HEADER = struct.Struct("<I")
REFUSAL = WELCOME.pack(MAGIC, 1, 0, 0, 0, 0)

MAX_BLOCK = 8192
"""The most samples in one message."""
CLIENT_TIMEOUT_SECONDS = 5.0
"""How long a client may take to send its hello or the rest of a message, or to receive one."""
GRACE_SECONDS = 1.0
"""How long a client may send no audio after its hello before it makes room for others."""
REPORT_SECONDS = 5.0
"""How often missed blocks are reported while their number grows."""


@dataclass(eq=False)
class Client:
    """A connection, and how long it has been silent."""

    connection: socket.socket
    thread: threading.Thread | None = None
    last_heard: float = field(default_factory=time.monotonic)
    patience_seconds: float = 0.0
    """How long it may be silent while others wait for a connection."""
    is_busy: bool = False
    """Whether it waits for the model."""

    def heard(self, patience_seconds: float) -> None:
        """Records that it has sent something, and how long it may be silent now."""
        self.last_heard, self.patience_seconds = time.monotonic(), patience_seconds

    @contextmanager
    def busy(self) -> Iterator[None]:
        """While this lasts, the client does not make room for others."""
        self.is_busy = True
        try:
            yield
        finally:
            self.heard(CLIENT_TIMEOUT_SECONDS)
            self.is_busy = False

    def close(self) -> None:
        """Ends the connection."""
        with suppress(OSError):  # it has ended already
            self.connection.shutdown(socket.SHUT_RDWR)


class Signal:
    """Separates the audio of one client.

    Args:
        client: its connection.
        token: 32 bytes that the client must send.
        models: the models that it can choose.
        model_lock: held while a model runs.
        is_stopping: whether the server is stopping.
        publish: called after a model was loaded, when the offers may have changed.
    """

    def __init__(
        self,
        client: Client,
        token: bytes,
        models: OfferedModels,
        model_lock: threading.Lock,
        is_stopping: Callable[[], bool],
        publish: Callable[[], None],
    ) -> None:
        self._client = client
        self._connection = client.connection
        self._token = token
        self._models = models
        self._model_lock = model_lock
        self._is_stopping = is_stopping
        self._publish = publish
        self._missed = _MissedBlocks()

    def run(self) -> None:
        """Serves the client until it ends the connection.

        Raises:
            OSError: the connection ended, or the client was refused.
            Error: what the client asked for is not offered, or the model failed.
        """
        connection = self._connection
        connection.settimeout(CLIENT_TIMEOUT_SECONDS)
        hello = HELLO.unpack(receive(connection, HELLO))
        magic, version, sample_rate, channels, lookahead_ms, token, name = hello
        known = magic == MAGIC and hmac.compare_digest(token, self._token)
        if not known or version != VERSION or channels not in (1, 2):
            connection.sendall(REFUSAL)
            raise ConnectionError(
                "refused a client with another protocol or token; after an update, run 'bsmamba2 "
                "plugin install' again and restart the DAW"
            )
        try:
            with self._client.busy():
                model = name.rstrip(b"\0").decode(errors="replace")
                served = self._models.serve(model, lookahead_ms if model else None)
                offer = self._models.offer(model)
                self._publish()
                stream = served.open_stream(sample_rate, channels)
            latency = math.ceil(served.latency_ms * sample_rate / 1000)
            needed = stream.latency_samples + FADE_SAMPLES
            if needed > latency:
                raise ConnectionError(
                    f"refused {sample_rate:g} Hz, whose latency is more than {served.latency_ms} ms"
                )
        except (Error, ConnectionError):
            connection.sendall(REFUSAL)
            raise
        self._client.heard(GRACE_SECONDS)
        welcome = WELCOME.pack(MAGIC, 0, latency, needed, len(offer.stems), offer.buses)
        connection.sendall(welcome)
        outputs = _Outputs(served, offer, channels)
        try:
            while True:
                audio = self._receive_audio(channels)
                with self._client.busy(), self._model_lock:
                    if self._is_stopping():
                        raise ConnectionError("the server is stopping")
                    stems = outputs.push(audio, stream.push(audio))
                for start in range(0, stems.shape[2], MAX_BLOCK):
                    part = stems[:, :, start : start + MAX_BLOCK]
                    header = RESPONSE_HEADER.pack(part.shape[2])
                    connection.sendall(header + part.astype("<f4").tobytes())
        finally:
            self._missed.finish()

    def _receive_audio(self, channels: int) -> Audio:
        connection = self._connection
        connection.settimeout(None)  # a DAW may pause for any time
        samples, missed = REQUEST_HEADER.unpack(receive(connection, REQUEST_HEADER))
        self._client.heard(CLIENT_TIMEOUT_SECONDS)
        if not 1 <= samples <= MAX_BLOCK:
            raise ConnectionError(f"refused a message of {samples} samples")
        self._missed.update(missed)
        connection.settimeout(CLIENT_TIMEOUT_SECONDS)
        audio = np.frombuffer(receive(connection, 4 * channels * samples), "<f4")
        return audio.reshape(channels, samples)


class _Outputs:
    """All stems of a stream, (stems, channels, samples); the order is that of the offer.

    A model without a residual gets the mixture minus its stems.
    """

    def __init__(self, served: Served, offer: Offer, channels: int) -> None:
        manifest = served.separator.manifest
        self._names = manifest.outputs
        self._derived = manifest.available[len(manifest.outputs) :]
        self._mixture = Fifo(channels, np.float32) if offer.buses > len(self._names) else None

    def push(self, audio: Audio, stems: Stems) -> Audio:
        outputs = [stems[name] for name in self._names]
        if self._mixture is not None:
            self._mixture.append(audio)
            mixture = self._mixture.take(outputs[0].shape[1])
            outputs.append(mixture - np.sum(outputs, axis=0, dtype=np.float32))
        outputs += [stems[name] for name in self._derived]
        return np.stack(outputs)


class _MissedBlocks:
    """Reports the blocks that a plugin had to output without stems."""

    def __init__(self) -> None:
        self._missed = self._reported = 0
        self._last_report = -math.inf

    def update(self, missed: int) -> None:
        """Takes the number since the plugin's render or playback began."""
        if missed < self._missed:  # another render has begun
            self.finish()
            self._reported = 0
        self._missed = missed
        if time.monotonic() - self._last_report > REPORT_SECONDS:
            self.finish()

    def finish(self) -> None:
        if self._missed > self._reported:
            log.warning("a plugin has output %d blocks without stems", self._missed)
            self._reported, self._last_report = self._missed, time.monotonic()


def receive(connection: socket.socket, message: struct.Struct | int) -> bytes:
    """Returns the bytes of one message.

    Raises:
        ConnectionError: the client closed the connection.
    """
    size = message if isinstance(message, int) else message.size
    parts = []
    while size:
        part = connection.recv(size)
        if not part:
            raise ConnectionError("the client closed the connection")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def require_same_user(connection: socket.socket) -> None:
    """Refuses a client of another user.

    Raises:
        ConnectionError: it is another user's.
    """
    if not hasattr(socket, "SO_PEERCRED"):
        return  # macOS: the folder and the token protect the socket
    size = struct.calcsize("3i")
    _, user, _ = struct.unpack(
        "3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    )
    if user != os.geteuid():
        raise ConnectionError(f"refused user {user}")
