"""How a server is reached: its URL, deadlines, retries, certificates."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bsmamba2.errors import DeviceError, MissingExtra, first_line, printable
from bsmamba2.installation import install_command

_CONNECT_S = 10.0
"""The longest time to open a connection."""


@dataclass(frozen=True)
class ServerOptions:
    """How a server is reached.

    Raises:
        DeviceError: a value is out of range, or a file is not a certificate.
    """

    url: str
    """``http://HOST:PORT`` or ``https://HOST:PORT``, with the path of a proxy if there is one."""
    deadline_s: float = 120.0
    """The longest time for one chunk, with all its retries."""
    retries: int = 3
    """How often a chunk is sent again after a lost connection or a busy server."""
    connections: int = 4
    """The most requests in progress at a time."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Headers of every request, e.g. ``Authorization``."""
    ca_file: Path | None = None
    """Certificates of the authorities to trust, PEM. None: those of this machine."""
    certificate: tuple[Path, Path] | None = None
    """This client's certificate and its key, PEM, if the server asks for one."""

    def __post_init__(self) -> None:
        _require_url(self.url)
        ranges = (
            ("deadline_s", self.deadline_s, 0.001, 86400.0),
            ("retries", self.retries, 0, 100),
            ("connections", self.connections, 1, 64),
        )
        for name, value, low, high in ranges:
            if not low <= value <= high:
                raise DeviceError(f"{name} must be in [{low:g}, {high:g}]; got {value:g}")
        if not self.is_secure and (self.ca_file or self.certificate):
            raise DeviceError("ca_file and certificate need a url that starts with https://")
        _require_certificates(self.ca_file, self.certificate)

    @property
    def is_secure(self) -> bool:
        """Whether the connection is encrypted and the server's certificate is verified."""
        return self.url.startswith("https://")

    @property
    def address(self) -> str:
        """Host, port and path: the URL without its scheme."""
        return self.url.partition("://")[2].rstrip("/")

    def new_client(self) -> Any:
        """Returns a ``tritonclient.http.InferenceServerClient``, for one thread.

        tritonclient is imported here: everything else works without it.

        Raises:
            MissingExtra: tritonclient is not installed.
        """
        try:
            from tritonclient import http
        except ImportError:
            raise MissingExtra(
                "a Triton server needs tritonclient, which is not installed: "
                f"{install_command('triton')}"
            ) from None
        tls: dict[str, str] = {}
        if self.ca_file is not None:
            tls["ca_certs"] = str(self.ca_file)
        if self.certificate is not None:
            tls["certfile"], tls["keyfile"] = (str(path) for path in self.certificate)
        return http.InferenceServerClient(
            self.address,
            connection_timeout=min(self.deadline_s, _CONNECT_S),
            network_timeout=self.deadline_s,
            ssl=self.is_secure,
            ssl_options=tls,
        )


def _require_certificates(ca_file: Path | None, certificate: tuple[Path, Path] | None) -> None:
    """Loads the certificates once, because tritonclient prints a traceback for damaged ones."""
    try:
        context = ssl.create_default_context(cafile=ca_file)
        if certificate is not None:
            context.load_cert_chain(*certificate)
    except OSError as error:  # ssl.SSLError is one
        files = ", ".join(str(path) for path in (ca_file, *(certificate or ())) if path)
        raise DeviceError(
            f"ca_file and certificate must be readable certificates, PEM; got {files} "
            f"({first_line(error)})"
        ) from None


def _require_url(url: str) -> None:
    try:
        address = urlsplit(url)
        port_fits = address.port is None or address.port > 0
    except ValueError:
        address, port_fits = urlsplit(""), False
    if address.username is not None or address.password is not None:
        raise DeviceError(
            "url must have no user name and no password in it: give them as headers, e.g. "
            "headers={'Authorization': …}"
        )
    complete = address.scheme in ("http", "https") and address.hostname and port_fits
    if not complete or address.query or address.fragment or not url.isprintable():
        raise DeviceError(
            f"url must be http://HOST:PORT or https://HOST:PORT; got {printable(repr(url))}"
        )
