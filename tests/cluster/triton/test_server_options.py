"""How a server is reached: what is allowed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bsmamba2 import DeviceError, MissingExtra
from bsmamba2_cluster.triton import ServerOptions


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000",
        "grpc://localhost:8001",
        "http://",
        "http://:8000",
        "http://host:99999",
        "http://host:8000/?key=1",
        "http://host:8000\n",
        "",
    ],
)
def test_a_url_that_is_not_of_a_server_is_refused(url: str) -> None:
    with pytest.raises(DeviceError, match="url must be http://HOST:PORT or https://HOST:PORT; got"):
        ServerOptions(url)


def test_a_password_in_the_url_is_refused_without_repeating_it() -> None:
    with pytest.raises(DeviceError, match="give them as headers") as raised:
        ServerOptions("https://user:secret@host")
    assert "secret" not in str(raised.value)


def test_headers_are_not_shown() -> None:
    assert "secret" not in repr(ServerOptions("http://host", headers={"Authorization": "secret"}))


@pytest.mark.parametrize(
    "change",
    [{"deadline_s": 0}, {"deadline_s": float("nan")}, {"retries": -1}, {"connections": 0}],
)
def test_a_number_out_of_range_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(DeviceError, match=rf"{next(iter(change))} must be in \["):
        ServerOptions("http://host", **change)


def test_certificates_need_https(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="need a url that starts with https://"):
        ServerOptions("http://host", ca_file=tmp_path)


def test_a_missing_certificate_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"must be readable .*ca.pem \(No such file"):
        ServerOptions("https://host", ca_file=tmp_path / "ca.pem")


def test_a_file_that_is_no_certificate_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "me.pem"
    path.write_text("not a certificate")
    with pytest.raises(DeviceError, match="must be readable certificates, PEM; got .*me.pem"):
        ServerOptions("https://host", certificate=(path, path))


def test_a_missing_client_names_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tritonclient", None)
    with pytest.raises(MissingExtra, match=r"needs tritonclient, which is not installed: pip .*"):
        ServerOptions("http://host").new_client()


def test_the_client_is_not_imported_before_it_is_needed() -> None:
    program = (
        "import sys, bsmamba2_cluster.triton, bsmamba2_cluster.triton.command;"
        "print({'tritonclient', 'gevent', 'torch', 'onnx', 'onnxruntime'} & set(sys.modules))"
    )
    # As one path on the command line, so that the process imports what this one imports.
    paths = f"import sys; sys.path[:] = {sys.path!r}; "
    found = subprocess.run(
        [sys.executable, "-c", paths + program], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "set()"
