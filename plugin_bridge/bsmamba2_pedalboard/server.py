"""One model for all plugin instances in all DAWs of one user, over a local socket.

``native/server_backend.cpp`` documents the protocol. A folder that only the user can open contains
the socket, a token that a client must send, and the latency, which a plugin reports to its host
before it has connected. Each connection is one signal. The server buffers one message per client,
at most ``MAX_BLOCK`` samples: a client that sends faster than the model runs has to wait.
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

import numpy as np

from bsmamba2 import Error, Separator, Stream
from bsmamba2.files.part_file import write_atomically
from bsmamba2_pedalboard.settings import EffectSettings

log = logging.getLogger("bsmamba2.serve")

MAGIC = b"bsm2"
VERSION = 1
HELLO = struct.Struct("<4sIdII32s")
WELCOME = struct.Struct("<4sIII")
REQUEST_HEADER = struct.Struct("<II")
RESPONSE_HEADER = struct.Struct("<I")

MAX_BLOCK = 8192
"""The most samples in one message."""
MAX_CONNECTIONS = 32
CLIENT_TIMEOUT_SECONDS = 5.0
"""How long a client may take to send its hello or the rest of a message, or to receive one."""
RESAMPLING_MS = 150
"""The most latency that resampling adds at rates other than the model's."""
MAX_HEADROOM_MS = 60_000
FADE_SAMPLES = 512
"""How early a response must arrive for the plugin not to fade to the input."""


class ServerError(Error):
    """The server cannot start."""


def server_folder() -> Path:
    """Returns the folder of the socket; ``native/socket.cpp`` uses the same rule."""
    if folder := os.environ.get("BSMAMBA2_SERVE_DIR"):
        return Path(folder)
    if folder := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(folder) / "bsmamba2"
    return Path.home() / ".cache" / "bsmamba2" / "serve"


class Server:
    """Listens in :func:`server_folder`; :meth:`run` serves until :meth:`stop`.

    Args:
        separator: runs the model, for one connection at a time.
        lookahead_ms: as in :class:`EffectSettings`.
        headroom_ms: extra latency reserved for inference. Default: twice the measured time.
        folder: used instead of :func:`server_folder`.

    Raises:
        ArgumentTypeError, ArgumentValueError: lookahead_ms is not valid.
        ServerError: headroom_ms is out of range, other users can open the folder, or another
            server is running in it.
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
                f"headroom_ms must be 0 to {MAX_HEADROOM_MS} ms; got {headroom_ms:g}: leave it "
                "out to have it measured"
            )
        self._separator = separator
        self._settings = EffectSettings(lookahead_ms=lookahead_ms)
        self._model_lock = threading.Lock()
        self._stopping = threading.Event()
        self._connections: set[socket.socket] = set()
        self._folder = server_folder() if folder is None else folder
        self._lock_file = _lock_private_folder(self._folder)
        rate = separator.manifest.sample_rate
        latency = 1000 * self._stream(rate, 2).latency_samples / rate
        headroom = self._measured_headroom_ms() if headroom_ms is None else headroom_ms
        self.latency_ms = math.ceil(latency + RESAMPLING_MS + headroom)
        self._token = secrets.token_bytes(32)
        self._listener = self._listen()

    def run(self, idle_exit: float | None = None) -> None:
        """Serves until :meth:`stop`, or until ``idle_exit`` seconds without a connection."""
        last_used = time.monotonic()
        try:
            while not self._stopping.is_set():
                if self._connections:
                    last_used = time.monotonic()
                elif idle_exit is not None and time.monotonic() - last_used > idle_exit:
                    break
                try:
                    self._admit(self._listener.accept()[0])
                except TimeoutError:
                    continue  # no client: check the clock
                except (OSError, RuntimeError) as error:  # no more files or threads
                    log.warning("a connection could not be accepted: %s", error)
                    self._stopping.wait(0.2)
        finally:
            self._close()

    def stop(self) -> None:
        """Ends :meth:`run`; may be called from any thread or signal handler."""
        self._stopping.set()

    def _stream(self, sample_rate: float, channels: int) -> Stream:
        return self._settings.open_stream(self._separator, sample_rate, channels)

    def _measured_headroom_ms(self) -> float:
        """Returns twice the longest step of a stream; this also warms the model up."""
        rate, longest = self._separator.manifest.sample_rate, 0.0
        stream = self._stream(rate, 2)
        noise = np.random.default_rng(0).uniform(-0.1, 0.1, (2, MAX_BLOCK)).astype(np.float32)
        for _ in range(2 * stream.latency_samples // MAX_BLOCK + 2):
            start = time.perf_counter()
            stream.push(noise)
            longest = max(longest, time.perf_counter() - start)
        if stream.load > 1:
            log.warning(
                "the model takes %.2f s for a second of audio here, so playback in a DAW stays "
                "unprocessed; render with the plugin's 'Wait when rendering' on",
                stream.load,
            )
        return 100 * math.ceil(20 * longest) + 50

    def _listen(self) -> socket.socket:
        write_atomically(self._folder / "token", self._token.hex().encode(), mode=0o600)
        write_atomically(self._folder / "latency_ms", str(self.latency_ms).encode(), mode=0o600)
        path = self._folder / "socket"
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(str(path))
        except OSError as error:
            listener.close()
            raise ServerError(
                f"the socket's path must allow a socket; got {path}, {error}: set "
                "BSMAMBA2_SERVE_DIR to a shorter or another path, for the server and the DAW alike"
            ) from None
        path.chmod(0o600)
        listener.listen(MAX_CONNECTIONS)
        listener.settimeout(0.2)
        return listener

    def _close(self) -> None:
        self._listener.close()
        for name in ("socket", "token"):  # plugins need latency_ms until the next server starts
            (self._folder / name).unlink(missing_ok=True)
        for connection in list(self._connections):
            with suppress(OSError):  # it has ended already
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
                self._handle(connection)
        except (OSError, Error) as error:
            log.info("a connection ended: %s", error)
        except Exception:
            log.exception("a connection failed")
        finally:
            self._connections.discard(connection)

    def _handle(self, connection: socket.socket) -> None:
        connection.settimeout(CLIENT_TIMEOUT_SECONDS)
        _require_same_user(connection)
        magic, version, sample_rate, channels, _, token = HELLO.unpack(_receive(connection, HELLO))
        known = magic == MAGIC and hmac.compare_digest(token, self._token)
        if not known or version != VERSION or channels not in (1, 2):
            connection.sendall(WELCOME.pack(MAGIC, 1, 0, 0))
            raise ConnectionError("refused a client with another protocol or token")
        try:
            stream = self._stream(sample_rate, channels)
        except Error:
            connection.sendall(WELCOME.pack(MAGIC, 1, 0, 0))
            raise
        latency = math.ceil(self.latency_ms * sample_rate / 1000)
        if stream.latency_samples + FADE_SAMPLES > latency:
            connection.sendall(WELCOME.pack(MAGIC, 1, 0, 0))
            raise ConnectionError(
                f"refused {sample_rate:g} Hz, whose latency is more than {self.latency_ms} ms"
            )
        names = self._separator.manifest.available
        connection.sendall(WELCOME.pack(MAGIC, 0, latency, len(names)))
        while True:
            connection.settimeout(None)  # a DAW may pause for any time
            stem, samples = REQUEST_HEADER.unpack(_receive(connection, REQUEST_HEADER))
            if not 1 <= samples <= MAX_BLOCK:
                raise ConnectionError(f"refused a message of {samples} samples")
            connection.settimeout(CLIENT_TIMEOUT_SECONDS)
            audio = np.frombuffer(_receive(connection, 4 * channels * samples), "<f4")
            with self._model_lock:
                stems = stream.push(audio.reshape(channels, samples))
            ready = stems[names[min(stem, len(names) - 1)]]
            for start in range(0, ready.shape[1], MAX_BLOCK):
                part = ready[:, start : start + MAX_BLOCK]
                header = RESPONSE_HEADER.pack(part.shape[1])
                connection.sendall(header + part.astype("<f4").tobytes())


def _receive(connection: socket.socket, message: struct.Struct | int) -> bytes:
    size = message if isinstance(message, int) else message.size
    parts = []
    while size:
        part = connection.recv(size)
        if not part:
            raise ConnectionError("the client closed the connection")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _require_same_user(connection: socket.socket) -> None:
    if not hasattr(socket, "SO_PEERCRED"):
        return  # macOS: the folder and the token protect the socket
    size = struct.calcsize("3i")
    _, user, _ = struct.unpack(
        "3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    )
    if user != os.geteuid():
        raise ConnectionError(f"refused user {user}")


def _lock_private_folder(folder: Path) -> int:
    """Creates and checks the folder; returns the lock file that this server holds while it runs."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    info = folder.lstat()
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid() or info.st_mode & 0o077:
        raise ServerError(
            f"{folder} must be a folder that only this user can open; got mode "
            f"{stat.filemode(info.st_mode)} of user {info.st_uid}: chmod 700 it, or set "
            "BSMAMBA2_SERVE_DIR to another folder"
        )
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise ServerError(f"bsmamba2 serve is already running in {folder}: stop it first") from None
    return lock
