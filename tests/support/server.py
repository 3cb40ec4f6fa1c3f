"""A web server on loopback that can misbehave: what a download must survive."""

from __future__ import annotations

import threading
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server:
    """Serves ``content`` at ``url``; each request takes the next of ``moods``, then behaves.

    A mood is a function of the handler that answers the request in its own way.
    """

    def __init__(self, content, moods=()):
        self.content, self.moods, self.starts = content, deque(moods), []
        self._served = threading.Event()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            server = owner

            def do_GET(self):
                owner.starts.append(start_of(self))
                mood = owner.moods.popleft() if owner.moods else honest
                mood(self, owner)

            def log_message(self, *_):
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._http.handle_error = lambda *_: None  # a client may be killed
        self.url = f"http://127.0.0.1:{self._http.server_port}/voice.safetensors"

    def __enter__(self):
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self._served.set()
        self._http.shutdown()
        self._http.server_close()

    def wait(self):
        """Until the test is over."""
        self._served.wait(20)


def start_of(handler):
    """The first byte that was asked for."""
    return int(handler.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])


def answer(handler, status, body, length=None, **headers):
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def honest(handler, server):
    start, total = start_of(handler), len(server.content)
    if start:
        span = f"bytes {start}-{total - 1}/{total}"
        answer(handler, 206, server.content[start:], Content_Range=span)
    else:
        answer(handler, 200, server.content)


def truncating(count):
    """Says the whole length, and sends this many bytes."""

    def mood(handler, server):
        start = start_of(handler)
        rest, total = server.content[start:], len(server.content)
        span = {"Content_Range": f"bytes {start}-{total - 1}/{total}"} if start else {}
        answer(handler, 206 if start else 200, rest[:count], length=len(rest), **span)

    return mood


def corrupting(handler, server):
    answer(handler, 200, bytes(len(server.content)))


def without_ranges(handler, server):
    answer(handler, 200, server.content)


def starting_anew(count):
    """Knows no ranges, says the whole length, and sends this many bytes."""
    return lambda handler, server: answer(
        handler, 200, server.content[:count], length=len(server.content)
    )


def stalling(count):
    """Sends so many bytes, and then nothing."""

    def mood(handler, server):
        answer(handler, 200, server.content[:count], length=len(server.content))
        handler.wfile.flush()
        server.wait()

    return mood


def endless(handler, server):
    """Has no length, and sends ten times the file."""
    handler.send_response(200)
    handler.end_headers()
    for _ in range(10):
        handler.wfile.write(server.content)


def redirecting(to):
    def mood(handler, server):
        answer(handler, 302, b"", Location=to or handler.path)

    return mood


def failing(status):
    return lambda handler, server: answer(handler, status, b"no")


def login_page(handler, server):
    answer(handler, 200, b"<html>Log in</html>", Content_Type="text/html; charset=utf-8")
