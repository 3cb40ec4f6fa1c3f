"""A proxy before an S3 server with the faults of a bad day, chosen at random from a seed."""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FAULTS = ("503", "slow", "drop before", "drop after", "drop within")
"""Answer 503; wait; close the connection before the request is passed on, after the server has
done it but before its answer, and in the middle of the answer."""


class FaultyProxy:
    """Passes requests on to a port of this machine; ``faults`` counts what it did to them."""

    def __init__(self, port: int, rate: float, seed: int = 0, delay_s: float = 0.3) -> None:
        self.rate, self.delay_s = rate, delay_s
        self.faults: Counter[str] = Counter()
        self.answered = 0
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def pass_on(self) -> None:
                owner.answer(self, port)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = pass_on  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        class Http(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, *_: object) -> None:
                pass

        self._http = Http(("127.0.0.1", 0), Handler)
        self.port = self._http.server_port

    def __enter__(self) -> FaultyProxy:
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def answer(self, handler: BaseHTTPRequestHandler, port: int) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        fault = self._choose()
        self.answered += 1
        if fault == "slow":
            time.sleep(self.delay_s)
        if fault == "503":
            _send(handler, 503, {}, b"<Error><Code>SlowDown</Code></Error>")
            return
        if fault == "drop before":
            _drop(handler)
            return
        status, headers, content = _forward(handler, port, body)
        if fault == "drop after":
            _drop(handler)
        elif fault == "drop within" and content:
            _send(handler, status, headers, content, content[: len(content) // 2])
            _drop(handler)
        else:
            _send(handler, status, headers, content)

    def _choose(self) -> str:
        with self._lock:
            fault = ""
            if self._random.random() < self.rate:
                fault = self._random.choice(FAULTS)
            self.faults[fault or "none"] += 1
            return fault


def _forward(
    handler: BaseHTTPRequestHandler, port: int, body: bytes
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.putrequest(
            handler.command, handler.path, skip_host=True, skip_accept_encoding=True
        )
        for name, value in handler.headers.items():
            if name.lower() not in ("connection", "content-length", "transfer-encoding"):
                connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        skipped = ("connection", "transfer-encoding", "content-length")
        headers = {k: v for k, v in answer.getheaders() if k.lower() not in skipped}
        content = answer.read()
        if handler.command == "HEAD":
            headers["Content-Length"] = answer.getheader("Content-Length") or "0"
        return answer.status, headers, content
    finally:
        connection.close()


def _send(
    handler: BaseHTTPRequestHandler,
    status: int,
    headers: dict[str, str],
    content: bytes,
    sent: bytes | None = None,
) -> None:
    handler.send_response_only(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    if "Content-Length" not in headers and status != 204:
        handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(content if sent is None else sent)


def _drop(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True
    handler.wfile.flush()
    handler.connection.close()
