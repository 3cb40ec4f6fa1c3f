"""A server of endless buckets: answers S3's ListObjectsV2 for keys that it computes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeAlias
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

PAGE = 1000
"""Keys per page, as S3 sends them."""

Keys: TypeAlias = Callable[[str, int, int], Sequence[tuple[str, int, str]]]
"""Called as ``keys(prefix, start, end)``; returns key, size and ETag of each; empty at the end."""


class ListingServer:
    """Serves listings on loopback; ``pages`` counts them."""

    def __init__(self, keys: Keys) -> None:
        self.pages = 0
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                query = parse_qs(urlsplit(self.path).query)
                prefix = query.get("prefix", [""])[0]
                start = int(query.get("continuation-token", ["0"])[0])
                found = keys(prefix, start, start + PAGE)
                owner.pages += 1
                body = _answer(found, start + PAGE if len(found) == PAGE else None).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/xml")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.port = self._http.server_port

    def __enter__(self) -> ListingServer:
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()


def _answer(found: Sequence[tuple[str, int, str]], following: int | None) -> str:
    rows = "".join(
        f"<Contents><Key>{escape(key)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
        f'<ETag>"{etag}"</ETag><Size>{size}</Size></Contents>'
        for key, size, etag in found
    )
    more = (
        "" if following is None else f"<NextContinuationToken>{following}</NextContinuationToken>"
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult>'
        f"<IsTruncated>{'true' if more else 'false'}</IsTruncated>{more}{rows}</ListBucketResult>"
    )
