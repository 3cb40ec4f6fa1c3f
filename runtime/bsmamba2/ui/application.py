"""The paths of the page's server: the page itself, and the files of each job."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import gradio as gr
from fastapi import FastAPI, HTTPException
from fastapi.responses import FileResponse, PlainTextResponse
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.middleware.trustedhost import TrustedHostMiddleware

from bsmamba2.errors import AudioError
from bsmamba2.ui import markup
from bsmamba2.ui.page import THEME, build
from bsmamba2.ui.sessions import Sessions

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from bsmamba2.ui.storage import Storage

_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'; "
    "form-action 'self'; base-uri 'self'"
)
"""What the page may load: only from this server, whatever the library would fetch elsewhere."""
_REPORT_POLICY = "sandbox allow-scripts; frame-ancestors 'self'"
"""A report brings its own, stricter policy; here it loses the origin of the page too."""

_GONE = "this file was removed: separate the song again"


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


class UploadLimit:
    """Refuses what the page's folder has no room for."""

    def __init__(self, app: ASGIApp, storage: Storage) -> None:
        self._app = app
        self._storage = storage

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        if not headers.get("content-type", "").startswith("multipart/"):
            await self._app(scope, receive, send)
            return
        length = headers.get("content-length", "")
        if not length.isdecimal():
            await PlainTextResponse("state the length of the upload", 411)(scope, receive, send)
            return
        room = self._storage.reserved(int(length))
        try:
            await run_in_threadpool(room.__enter__)
        except AudioError as error:
            await PlainTextResponse(str(error), 413)(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        finally:
            room.__exit__(None, None, None)


def application(sessions: Sessions, names: Sequence[str], device: str, host: str) -> FastAPI:
    """Returns what the server runs.

    Args:
        sessions, names, device: see :func:`bsmamba2.ui.page.build`.
        host: the address of the server.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/results/{token}/{row}/report")
    def report(token: str, row: int, download: bool = False) -> FileResponse:
        job = sessions.of_token(token)
        results = job.status.results if job else ()
        path = results[row].report if 0 <= row < len(results) else None
        if path is None or not path.exists():
            raise HTTPException(404, _GONE)
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
            raise HTTPException(404, _GONE)
        return FileResponse(path, filename=path.name)

    app.add_middleware(UploadLimit, storage=sessions.storage)
    app.add_middleware(PageHeaders)
    # A page elsewhere cannot reach this one under a name of its own that resolves to this machine.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[host, "localhost"])
    page = build(sessions, names, device)
    # Otherwise gradio lets a request name any file of this machine, and copies it to its uploads.
    page.has_launched = True
    gr.mount_gradio_app(
        app,
        page,
        path="/",
        server_name=host,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        theme=THEME,
        css=markup.CSS,
    )
    return app
