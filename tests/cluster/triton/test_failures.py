"""What a failed request means, and whether it is sent again."""

from __future__ import annotations

import socket
import ssl

import pytest

from bsmamba2 import DeviceError, Error, ModelError
from bsmamba2_cluster.triton.failures import explain
from bsmamba2_cluster.triton.server_options import ServerOptions

OPTIONS = ServerOptions("http://host:8000", headers={"Authorization": "secret"})


class Answer(Exception):  # noqa: N818 - in the form of tritonclient's InferenceServerException
    def __init__(self, status: str, message: str) -> None:
        self._status, self._message = status, message

    def status(self) -> str:
        return self._status

    def message(self) -> str:
        return self._message


@pytest.mark.parametrize(
    ("error", "kind", "message", "is_temporary"),
    [
        (ConnectionRefusedError(111, "Connection refused"), DeviceError, "no server answers", True),
        (ConnectionResetError(104, "reset"), DeviceError, "the connection to .* failed", True),
        (socket.gaierror(-2, "Name unknown"), DeviceError, "host of .* is unknown", False),
        (TimeoutError(), DeviceError, r"within 120 s \(deadline_s\)", False),
        (ssl.SSLError(1, "wrong version"), DeviceError, "does not accept a TLS", False),
        (ssl.SSLCertVerificationError(1, "self-signed"), DeviceError, "is not trusted", False),
        (Answer("503", "loading"), DeviceError, r"busy or not ready \(503: loading\)", True),
        (Answer("429", ""), DeviceError, "busy", True),
        (Answer("401", "no"), DeviceError, "refuses the request .*: check headers", False),
        (Answer("404", "Request for unknown model"), ModelError, "has no model 'voice'", False),
        (Answer("400", "unexpected shape"), ModelError, "refuses its input", False),
        (Answer("400", "must specify the START flag"), DeviceError, "reset the stream", False),
        (Answer("500", "out of memory"), DeviceError, "failed .500: out of memory", False),
    ],
)
def test_every_failure_has_its_message(
    error: Exception, kind: type[Error], message: str, is_temporary: bool
) -> None:
    failure = explain(error, OPTIONS, "voice")
    assert isinstance(failure.error, kind)
    assert failure.is_temporary is is_temporary
    with pytest.raises(Error, match=message):
        raise failure.error


@pytest.mark.parametrize("text", ["two\nlines", "\x1b[31mred", "x" * 10_000])
def test_a_servers_text_stays_one_short_printable_line(text: str) -> None:
    message = str(explain(Answer("500", text), OPTIONS, "voice").error)
    assert message.isprintable()
    assert len(message) < 400


def test_headers_are_in_no_message() -> None:
    for error in (Answer("401", "no"), OSError("lost")):
        assert "secret" not in str(explain(error, OPTIONS, "voice").error)
