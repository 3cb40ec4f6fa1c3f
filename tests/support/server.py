"""A web server on loopback with faults that a download must survive."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeAlias

Behaviour: TypeAlias = Callable[[BaseHTTPRequestHandler, "Server"], None]
"""Answers one request."""


class Server:
    """Serves ``content`` at ``url``.

    Each request is answered by the next of ``behaviours``, and by :func:`honest` after the last.
    ``starts`` holds the first byte of each request.
    """

    def __init__(self, content: bytes, behaviours: Iterable[Behaviour] = ()) -> None:
        self.content = content
        self.behaviours = deque(behaviours)
        self.starts: list[int] = []
        self._closed = threading.Event()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.starts.append(start_of(self))
                behaviour = owner.behaviours.popleft() if owner.behaviours else honest
                behaviour(self, owner)

            def log_message(self, *_: object) -> None:
                pass

        class Http(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:  # a client may be killed
                pass

        self._http = Http(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/voice.safetensors"

    def __enter__(self) -> Server:
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._http.shutdown()
        self._http.server_close()

    def wait(self) -> None:
        """Blocks until the server is closed, at most 20 s."""
        self._closed.wait(20)


def start_of(handler: BaseHTTPRequestHandler) -> int:
    """The first requested byte."""
    return int(handler.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])


def answer(
    handler: BaseHTTPRequestHandler,
    status: int,
    body: bytes,
    length: int | None = None,
    **headers: str,
) -> None:
    """Sends an answer; ``length`` overrides the stated length of the body."""
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def honest(handler: BaseHTTPRequestHandler, server: Server) -> None:
    """Sends the requested bytes."""
    start, total = start_of(handler), len(server.content)
    if start:
        span = f"bytes {start}-{total - 1}/{total}"
        answer(handler, 206, server.content[start:], Content_Range=span)
    else:
        answer(handler, 200, server.content)


def truncating(count: int) -> Behaviour:
    """States the whole length, but sends only ``count`` bytes."""

    def behaviour(handler: BaseHTTPRequestHandler, server: Server) -> None:
        start = start_of(handler)
        rest, total = server.content[start:], len(server.content)
        span = {"Content_Range": f"bytes {start}-{total - 1}/{total}"} if start else {}
        answer(handler, 206 if start else 200, rest[:count], len(rest), **span)

    return behaviour


def corrupting(handler: BaseHTTPRequestHandler, server: Server) -> None:
    """Sends zeros of the right length."""
    answer(handler, 200, bytes(len(server.content)))


def without_ranges(handler: BaseHTTPRequestHandler, server: Server) -> None:
    """Ignores the range and sends the whole file."""
    answer(handler, 200, server.content)


def restarting(count: int) -> Behaviour:
    """Ignores the range, states the whole length, but sends only the first ``count`` bytes."""
    return lambda handler, server: answer(
        handler, 200, server.content[:count], length=len(server.content)
    )


def stalling(count: int) -> Behaviour:
    """Sends ``count`` bytes and then nothing."""

    def behaviour(handler: BaseHTTPRequestHandler, server: Server) -> None:
        answer(handler, 200, server.content[:count], length=len(server.content))
        handler.wfile.flush()
        server.wait()

    return behaviour


def endless(handler: BaseHTTPRequestHandler, server: Server) -> None:
    """States no length and sends ten times the file."""
    handler.send_response(200)
    handler.end_headers()
    for _ in range(10):
        handler.wfile.write(server.content)


def stating(length: str | None) -> Behaviour:
    """States a length, or none, and sends nothing."""

    def behaviour(handler: BaseHTTPRequestHandler, server: Server) -> None:
        handler.send_response(200)
        if length is not None:
            handler.send_header("Content-Length", length)
        handler.end_headers()

    return behaviour


def redirecting(to: str | None) -> Behaviour:
    """Redirects to another address, or to itself without one."""

    def behaviour(handler: BaseHTTPRequestHandler, server: Server) -> None:
        answer(handler, 302, b"", Location=to or handler.path)

    return behaviour


def failing(status: int) -> Behaviour:
    """Answers with an error."""
    return lambda handler, server: answer(handler, status, b"no")


def login_page(handler: BaseHTTPRequestHandler, server: Server) -> None:
    """Sends a web page, as networks with a login do."""
    answer(handler, 200, b"<html>Log in</html>", Content_Type="text/html; charset=utf-8")
