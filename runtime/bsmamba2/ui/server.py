"""Runs the page for the browsers of this machine."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from bsmamba2.errors import Error
from bsmamba2.ui import choices
from bsmamba2.ui.job import SharedModel
from bsmamba2.ui.sessions import Sessions

if TYPE_CHECKING:
    from bsmamba2.ui.job import SongSeparator
    from bsmamba2.ui.storage import Limits

HOST = "127.0.0.1"
"""Other machines cannot reach it."""
PORT = 7860


def listen(port: int | None) -> socket.socket:
    """Returns a socket that browsers of this machine can reach.

    Args:
        port: None: 7860, or a free one if that is taken.

    Raises:
        Error: the port is taken.
    """
    for wanted in (PORT, 0) if port is None else (port,):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, wanted))
        except OSError as error:
            listener.close()
            failure = error
            continue
        listener.listen(128)
        return listener
    raise Error(f"port must be free; got {port} ({failure.strerror}): choose another, or none")


def serve(
    load: Callable[[str, str], SongSeparator],
    models: Sequence[str] = (),
    device: str = "auto",
    port: int | None = None,
    started: Callable[[str], None] = lambda url: None,
    limits: Limits | None = None,
) -> None:
    """Runs the page until Ctrl-C or SIGTERM; then nothing of it is left.

    Args:
        load: returns a separator for a model and a device.
        models: to offer besides the named ones that are here; the first is preselected.
        device: preselected.
        port: see :func:`listen`.
        started: gets the address once browsers can open it.
        limits: of what is kept.

    Raises:
        Error: the port is taken.
    """
    with (
        closing(listen(port)) as listener,
        tempfile.TemporaryDirectory(prefix="bsmamba2-ui-", ignore_cleanup_errors=True) as folder,
    ):
        sessions = Sessions(Path(folder), SharedModel(load), limits)
        _prepare(sessions.storage.uploads)
        import uvicorn

        from bsmamba2.ui.application import application

        app = application(sessions, choices.models(models), device, HOST)
        # A tab that is open keeps a connection, which must not keep the server.
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
        logging.getLogger("uvicorn.error").addFilter(_is_worth_reading)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C
        with suppress(KeyboardInterrupt), _expiring(sessions):
            started(f"http://{HOST}:{listener.getsockname()[1]}/")
            uvicorn.Server(config).run(sockets=[listener])
        sessions.close_all()


@contextmanager
def _expiring(sessions: Sessions) -> Iterator[None]:
    """Removes what is not used, until the end of the block."""
    ended = threading.Event()
    interval_s = min(60.0, sessions.limits.idle_s / 4)

    def run() -> None:
        while not ended.wait(interval_s):
            sessions.expire()

    thread = threading.Thread(target=run, name="bsmamba2 expiry", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _is_worth_reading(record: logging.LogRecord) -> bool:
    """Whether a line of the log is no consequence of ending while a tab is open."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, asyncio.CancelledError) and "shutdown" not in record.getMessage()


def _prepare(uploads: Path) -> None:
    """Sets what gradio reads when it is imported: it reports nothing, and keeps uploads here."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["GRADIO_TEMP_DIR"] = str(uploads)
