"""Serves the page to browsers of this machine only, and the files of each job to its visitor."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import gradio as gr
import uvicorn
from fastapi import FastAPI, HTTPException
from fastapi.responses import FileResponse
from starlette.middleware.trustedhost import TrustedHostMiddleware

from bsmamba2.errors import Error
from bsmamba2.ui import choices, markup
from bsmamba2.ui.app import THEME, build
from bsmamba2.ui.job import SharedModel, SongSeparator
from bsmamba2.ui.sessions import Sessions

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOST = "127.0.0.1"
PORT = 7860

_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'; "
    "form-action 'self'; base-uri 'self'"
)
"""What the page may load: only from this server, whatever the library would fetch elsewhere."""
_REPORT_POLICY = "sandbox allow-scripts; frame-ancestors 'self'"
"""A report brings its own, stricter policy; here it loses the origin of the page too."""


class PageHeaders:
    """Adds the policy of the page to every response that has none."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def add(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message["headers"])
                if all(name != b"content-security-policy" for name, _ in headers):
                    headers.append((b"content-security-policy", _POLICY.encode()))
                headers += [(b"referrer-policy", b"no-referrer")]
                headers += [(b"x-content-type-options", b"nosniff")]
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, add)


def application(sessions: Sessions, names: Sequence[str], device: str = "auto") -> FastAPI:
    """Returns the server of the page.

    Args:
        sessions, names, device: see :func:`bsmamba2.ui.app.build`.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/results/{token}/{row}/report")
    def report(token: str, row: int, download: bool = False) -> FileResponse:
        job = sessions.of_token(token)
        results = job.status.results if job else ()
        path = results[row].report if 0 <= row < len(results) else None
        if path is None or not path.exists():
            raise HTTPException(404)
        kind = "attachment" if download else "inline"
        return FileResponse(
            path,
            filename=path.name,
            content_disposition_type=kind,
            headers={"content-security-policy": _REPORT_POLICY},
        )

    @app.get("/results/{token}/{row}/{file}")
    def stem(token: str, row: int, file: int) -> FileResponse:
        path = markup.found(sessions.of_token(token), row, file)
        if path is None or not path.exists():
            raise HTTPException(404)
        return FileResponse(path, filename=path.name)

    app.add_middleware(PageHeaders)
    # A page elsewhere cannot reach this one under a name of its own that resolves to this machine.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
    return gr.mount_gradio_app(
        app,
        build(sessions, names, device),
        path="/",
        server_name=HOST,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        theme=THEME,
        css=markup.CSS,
    )


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
    raise Error(f"port {port} cannot be used ({failure.strerror}): choose another with --port")


def serve(
    load: Callable[[str, str], SongSeparator],
    models: Sequence[str] = (),
    device: str = "auto",
    port: int | None = None,
    started: Callable[[str], None] = lambda url: None,
) -> None:
    """Runs the page until Ctrl-C; then nothing of it is left.

    Args:
        load: returns a separator for a model and a device.
        models: to offer besides the named ones that are here; the first is preselected.
        device: preselected.
        port: see :func:`listen`.
        started: gets the address once browsers can open it.

    Raises:
        Error: the port is taken.
    """
    with (
        closing(listen(port)) as listener,
        tempfile.TemporaryDirectory(prefix="bsmamba2-ui-", ignore_cleanup_errors=True) as folder,
    ):
        os.environ["GRADIO_TEMP_DIR"] = str(Path(folder) / "uploads")
        sessions = Sessions(Path(folder) / "results", SharedModel(load))
        app = application(sessions, choices.models(models), device)
        # A tab that is open keeps a connection, which must not keep the server.
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
        started(f"http://{HOST}:{listener.getsockname()[1]}/")
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])
        sessions.close_all()
