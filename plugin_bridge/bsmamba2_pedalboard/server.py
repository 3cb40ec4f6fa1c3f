"""One server for all plugin instances in all DAWs of one user, over a local socket.

``native/server_backend.cpp`` documents the protocol. A folder that only the user can open contains
the socket, a token that a client must send, and the offers, which a plugin reads before it has
connected. Each connection is one signal. The server buffers one message per client, at most
``MAX_BLOCK`` samples: a client that sends faster than the model runs has to wait. If all
connections are taken, the one that has been silent longest makes room for a new one.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import select
import socket
import stat
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from bsmamba2 import Error
from bsmamba2.files.cache import in_home
from bsmamba2.files.part_file import write_atomically
from bsmamba2_pedalboard.connection import Client, Signal, require_same_user
from bsmamba2_pedalboard.offered_models import OfferedModels, OtherModel
from bsmamba2_pedalboard.settings import EffectSettings

if TYPE_CHECKING:
    from bsmamba2 import Separator

log = logging.getLogger("bsmamba2.serve")

MAX_CONNECTIONS = 32
THREAD_NAME = "bsmamba2 serve"
MAX_HEADROOM_MS = 60_000
OFFERS = "models"
"""The name of the file with the offers."""
MAX_OFFERS_BYTES = 1 << 20


class ServerError(Error):
    """The server cannot start."""


def server_folder() -> Path:
    """Returns the folder of the socket; ``native/socket.cpp`` uses the same rule."""
    if folder := os.environ.get("BSMAMBA2_SERVE_DIR"):
        return Path(folder)
    if folder := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(folder) / "bsmamba2"
    return in_home("~/.cache/bsmamba2/serve", "BSMAMBA2_SERVE_DIR")


def require_headroom(headroom_ms: float | None) -> None:
    """Refuses a headroom out of range.

    Raises:
        ServerError: it is out of range.
    """
    if headroom_ms is not None and not 0 <= headroom_ms <= MAX_HEADROOM_MS:
        raise ServerError(
            f"headroom_ms must be 0 to {MAX_HEADROOM_MS} ms; got {headroom_ms:g}: leave it out to "
            "have it measured"
        )


class Server:
    """Listens in :func:`server_folder`; :meth:`run` serves until :meth:`stop`.

    Args:
        separator: the default model. Models run for one connection at a time.
        lookahead_ms: the default lookahead, as in :class:`EffectSettings`.
        headroom_ms: extra latency reserved for inference. Default: twice the measured time.
        folder: used instead of :func:`server_folder`.
        others: models that plugins can choose as well.
        installed: the offers in the installed plugin, whose latencies are kept.

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
        others: Sequence[OtherModel] = (),
        installed: Path | None = None,
    ) -> None:
        require_headroom(headroom_ms)
        EffectSettings(lookahead_ms=lookahead_ms)
        self._model_lock = threading.Lock()
        self._stopping = threading.Event()
        self._publish_lock = threading.Lock()
        self._published = ""
        self._clients: dict[Client, None] = {}
        self._folder = server_folder() if folder is None else folder
        self._lock_file = _lock_private_folder(self._folder)
        self._models = OfferedModels(
            separator, lookahead_ms, headroom_ms, others, self._known_latencies(installed)
        )
        self.latency_ms = self._models.default_latency_ms
        self._token = secrets.token_bytes(32)
        self._listener = self._listen()

    def run(self, idle_exit: float | None = None) -> None:
        """Serves until :meth:`stop`, or until ``idle_exit`` seconds without a connection."""
        last_used = time.monotonic()
        try:
            while not self._stopping.is_set():
                if self._clients:
                    last_used = time.monotonic()
                elif idle_exit is not None and time.monotonic() - last_used > idle_exit:
                    break
                try:
                    if select.select([self._listener], [], [], 0.2)[0]:
                        self._admit_next()
                except (OSError, RuntimeError) as error:  # no more files or threads
                    log.warning("a connection could not be accepted: %s", error)
                    self._stopping.wait(0.2)
        finally:
            self._close()

    def stop(self) -> None:
        """Ends :meth:`run`; may be called from any thread or signal handler."""
        self._stopping.set()

    def _known_latencies(self, installed: Path | None) -> list[str]:
        """Returns the offers of earlier servers and of the installed plugin."""
        paths = [path for path in (installed, self._folder / OFFERS) if path is not None]
        texts = []
        for path in paths:
            with suppress(OSError), path.open(encoding="utf-8", errors="replace") as file:
                texts.append(file.read(MAX_OFFERS_BYTES))
        return texts

    def _publish(self) -> None:
        """Writes the offers, if they have changed."""
        with self._publish_lock:
            text = self._models.to_text()
            if text != self._published:
                write_atomically(self._folder / OFFERS, text.encode(), mode=0o600)
                self._published = text

    def _listen(self) -> socket.socket:
        write_atomically(self._folder / "token", self._token.hex().encode(), mode=0o600)
        self._publish()
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
        listener.listen(4 * MAX_CONNECTIONS)  # those that wait for room too
        listener.settimeout(0.2)  # a client may have left the queue
        return listener

    def _close(self) -> None:
        """Ends every connection, and waits for their threads.

        A thread that runs the model while Python shuts down would abort the process.
        """
        self._stopping.set()
        self._listener.close()
        for name in ("socket", "token"):  # plugins need the offers until the next server starts
            (self._folder / name).unlink(missing_ok=True)
        clients = list(self._clients)
        for client in clients:
            client.close()
        for client in clients:
            if client.thread is not None:
                client.thread.join()
        os.close(self._lock_file)

    def _admit_next(self) -> None:
        """Accepts the next client, if there is room or a silent client can make room."""
        if len(self._clients) >= MAX_CONNECTIONS:
            silent = self._longest_silent()
            if silent is None:
                self._stopping.wait(0.05)  # the client waits in the listener's queue
                return
            log.info("a silent client made room for another")
            self._clients.pop(silent, None)
            silent.close()
        client = Client(self._listener.accept()[0])
        self._clients[client] = None
        client.thread = threading.Thread(
            target=self._serve, args=[client], name=THREAD_NAME, daemon=True
        )
        try:
            client.thread.start()
        except RuntimeError:
            client.thread = None
            self._clients.pop(client, None)
            client.connection.close()
            raise

    def _longest_silent(self) -> Client | None:
        now = time.monotonic()
        silent = [
            client
            for client in list(self._clients)
            if not client.is_busy and now - client.last_heard >= client.patience_seconds
        ]
        return min(
            silent, key=lambda client: (client.patience_seconds, client.last_heard), default=None
        )

    def _serve(self, client: Client) -> None:
        try:
            with client.connection:
                require_same_user(client.connection)
                Signal(
                    client,
                    self._token,
                    self._models,
                    self._model_lock,
                    self._stopping.is_set,
                    self._publish,
                ).run()
        except (OSError, Error) as error:
            log.info("a connection ended: %s", error)
        except Exception:  # a bug met by one client must not end the server of the others
            log.exception("a connection failed")
        finally:
            self._clients.pop(client, None)


def is_serving(folder: Path) -> bool:
    """Returns whether a server accepts connections in the folder."""
    with socket.socket(socket.AF_UNIX) as client, suppress(OSError):
        client.connect(str(folder / "socket"))
        return True
    return False


def is_locked(folder: Path) -> bool:
    """Returns whether a server runs in the folder, also if it is starting or ending."""
    lock = _lock(folder)
    if lock is not None:
        os.close(lock)
    return lock is None


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
    for _ in range(10):
        if (lock := _lock(folder)) is not None:
            return lock
        time.sleep(0.02)  # is_locked may be trying it
    raise ServerError(f"bsmamba2 serve is already running in {folder}: stop it first")


def _lock(folder: Path) -> int | None:
    """Returns the locked file; None if another process holds the lock."""
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock
