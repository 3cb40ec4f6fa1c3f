"""One model for all instances of the plugin in all DAWs of one user, over a local socket.

What goes over the socket stands in ``native/server_backend.cpp``. In a folder that only the user
can open are the socket, a token that a client must show, and the latency, from which a plugin knows
what to tell its host before it has reached us. Each connection is one signal. Nothing is kept of a
client but one message, at most ``MAX_BLOCK`` samples: one that sends faster than the model runs
waits.
"""

from __future__ import annotations

import fcntl
import hmac
import logging
import math
import os
import secrets
import socket
import stat
import struct
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bsmamba2 import Error, Separator

if TYPE_CHECKING:
    from bsmamba2.stream import Stream

log = logging.getLogger("bsmamba2.serve")

MAGIC = b"bsm2"
VERSION = 1
HELLO = struct.Struct("<4sIdII32s")
WELCOME = struct.Struct("<4sIII")
TO_MODEL = struct.Struct("<II")
BACK = struct.Struct("<I")

MAX_BLOCK = 8192
"""Samples of one message."""
MAX_CONNECTIONS = 32
PATIENCE = 5.0
"""Seconds for a client to say hello, and to take an answer."""
RESAMPLING_MS = 150
"""What filters add to the latency at rates other than the model's, at most."""
MAX_HEADROOM_MS = 60_000
FADE = 512
"""Samples by which an answer must be early for the plugin not to fade."""


class ServerError(Error):
    """The server cannot start."""


def server_folder() -> Path:
    """Where the socket is; the plugin looks there too (``native/socket.cpp``)."""
    if folder := os.environ.get("BSMAMBA2_SERVE_DIR"):
        return Path(folder)
    if folder := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(folder) / "bsmamba2"
    return Path.home() / ".cache" / "bsmamba2" / "serve"


class Server:
    """Listens in :func:`server_folder`; :meth:`run` serves until :meth:`stop`.

    Args:
        separator: runs the model, for one connection at a time.
        lookahead_ms: as for :meth:`bsmamba2.Separator.stream`.
        headroom_ms: of the latency, for the model to run in. Default: twice what it takes here.
        folder: instead of :func:`server_folder`.

    Raises:
        ServerError: headroom_ms is out of its range; the folder is not the user's alone, or has a
            server.
    """

    def __init__(
        self,
        separator: Separator,
        *,
        lookahead_ms: float | None = None,
        headroom_ms: float | None = None,
        folder: Path | None = None,
    ) -> None:
        if headroom_ms is not None and not 0 <= headroom_ms <= MAX_HEADROOM_MS:
            raise ServerError(
                f"headroom_ms must be 0 to {MAX_HEADROOM_MS} ms; {headroom_ms:g} came: leave it "
                "out for what is measured"
            )
        self._separator = separator
        self._lookahead_ms = lookahead_ms
        self._model = threading.Lock()
        self._stopping = threading.Event()
        self._connections: set[socket.socket] = set()
        self._folder = server_folder() if folder is None else folder
        self._lock_file = _own_folder(self._folder)
        rate = separator.manifest.sample_rate
        latency = 1000 * self._stream(rate, 2).latency_samples / rate
        headroom = self._measured_headroom_ms() if headroom_ms is None else headroom_ms
        self.latency_ms = math.ceil(latency + RESAMPLING_MS + headroom)
        self._token = secrets.token_bytes(32)
        self._listener = self._listen()

    def run(self, idle_exit: float | None = None) -> None:
        """Serves until :meth:`stop`, or until there was no connection for so many seconds."""
        used = time.monotonic()
        try:
            while not self._stopping.is_set():
                if self._connections:
                    used = time.monotonic()
                elif idle_exit is not None and time.monotonic() - used > idle_exit:
                    break
                try:
                    self._admit(self._listener.accept()[0])
                except TimeoutError:
                    continue  # nobody came, which is the time to look at the clock
                except (OSError, RuntimeError) as error:  # out of files, or of threads
                    log.warning("a connection could not be taken: %s", error)
                    self._stopping.wait(0.2)
        finally:
            self._close()

    def stop(self) -> None:
        """Ends :meth:`run` from any thread, or from a signal."""
        self._stopping.set()

    def _stream(self, sample_rate: float, channels: int) -> Stream:
        return self._separator.stream(sample_rate, channels, lookahead_ms=self._lookahead_ms)

    def _measured_headroom_ms(self) -> float:
        """Twice the longest step of a stream, which warms the model up as well."""
        rate, longest = self._separator.manifest.sample_rate, 0.0
        stream = self._stream(rate, 2)
        noise = np.random.default_rng(0).uniform(-0.1, 0.1, (2, MAX_BLOCK)).astype(np.float32)
        for _ in range(2 * stream.latency_samples // MAX_BLOCK + 2):
            start = time.perf_counter()
            stream.push(noise)
            longest = max(longest, time.perf_counter() - start)
        if stream.load > 1:
            log.warning(
                "the model takes %.2f s for a second of sound here: what a DAW plays stays dry; "
                "render with the plugin's 'Wait when rendering' on",
                stream.load,
            )
        return 100 * math.ceil(20 * longest) + 50

    def _listen(self) -> socket.socket:
        _write(self._folder / "token", self._token.hex())
        _write(self._folder / "latency_ms", str(self.latency_ms))
        path = self._folder / "socket"
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(str(path))
        except OSError as error:
            listener.close()
            raise ServerError(
                f"no socket can be made at {path}, {error}: set BSMAMBA2_SERVE_DIR to a shorter or "
                "another path, for the server and the DAW alike"
            ) from None
        path.chmod(0o600)
        listener.listen(MAX_CONNECTIONS)
        listener.settimeout(0.2)
        return listener

    def _close(self) -> None:
        self._listener.close()
        for name in ("socket", "token"):  # the latency is for those who come before the next
            (self._folder / name).unlink(missing_ok=True)
        for connection in list(self._connections):
            with suppress(OSError):  # it has ended by itself
                connection.shutdown(socket.SHUT_RDWR)
        os.close(self._lock_file)

    def _admit(self, connection: socket.socket) -> None:
        if len(self._connections) >= MAX_CONNECTIONS:
            connection.close()
            return
        self._connections.add(connection)
        try:
            threading.Thread(target=self._serve, args=[connection], daemon=True).start()
        except RuntimeError:
            self._connections.discard(connection)
            connection.close()
            raise

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                self._converse(connection)
        except (OSError, Error) as error:
            log.info("a connection ended: %s", error)
        except Exception:
            log.exception("a connection failed")
        finally:
            self._connections.discard(connection)

    def _converse(self, connection: socket.socket) -> None:
        connection.settimeout(PATIENCE)
        _require_same_user(connection)
        magic, version, sample_rate, channels, _, token = HELLO.unpack(_receive(connection, HELLO))
        known = magic == MAGIC and hmac.compare_digest(token, self._token)
        if not known or version != VERSION or channels not in (1, 2):
            connection.sendall(WELCOME.pack(MAGIC, 1, 0, 0))
            raise ConnectionError("a client that is not ours was refused")
        try:
            stream = self._stream(sample_rate, channels)
        except Error:
            connection.sendall(WELCOME.pack(MAGIC, 1, 0, 0))
            raise
        latency = math.ceil(self.latency_ms * sample_rate / 1000)
        if stream.latency_samples + FADE > latency:
            connection.sendall(WELCOME.pack(MAGIC, 1, 0, 0))
            raise ConnectionError(f"{sample_rate:g} Hz takes more than {self.latency_ms} ms")
        names = self._separator.manifest.outputs
        connection.sendall(WELCOME.pack(MAGIC, 0, latency, len(names)))
        while True:
            connection.settimeout(None)  # a DAW may pause for ever
            stem, samples = TO_MODEL.unpack(_receive(connection, TO_MODEL))
            if not 1 <= samples <= MAX_BLOCK:
                raise ConnectionError(f"a message of {samples} samples was refused")
            connection.settimeout(PATIENCE)
            audio = np.frombuffer(_receive(connection, 4 * channels * samples), "<f4")
            with self._model:
                stems = stream.push(audio.reshape(channels, samples))
            ready = stems[names[min(stem, len(names) - 1)]]
            for start in range(0, ready.shape[1], MAX_BLOCK):
                part = ready[:, start : start + MAX_BLOCK]
                connection.sendall(BACK.pack(part.shape[1]) + part.astype("<f4").tobytes())


def _receive(connection: socket.socket, form: struct.Struct | int) -> bytes:
    size = form if isinstance(form, int) else form.size
    parts = []
    while size:
        part = connection.recv(size)
        if not part:
            raise ConnectionError("the client has closed")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _require_same_user(connection: socket.socket) -> None:
    if not hasattr(socket, "SO_PEERCRED"):
        return  # the folder and the token stand alone there
    size = struct.calcsize("3i")
    _, user, _ = struct.unpack(
        "3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    )
    if user != os.geteuid():
        raise ConnectionError(f"user {user} was refused")


def _own_folder(folder: Path) -> int:
    """The folder made and checked; returns the lock that this server holds as long as it lives."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    info = folder.lstat()
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid() or info.st_mode & 0o077:
        raise ServerError(
            f"{folder} must be a folder that this user alone can open: chmod 700 it, or set "
            "BSMAMBA2_SERVE_DIR to another"
        )
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise ServerError(f"a bsmamba2 serve runs already in {folder}: stop it first") from None
    return lock


def _write(path: Path, text: str) -> None:
    """A file that nobody else can read, and nobody reads half of."""
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    part.replace(path)
