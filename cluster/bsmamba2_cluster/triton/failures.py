"""What a failed request means: an error of bsmamba2, and whether a retry may succeed."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass

from bsmamba2.errors import DeviceError, Error, ModelError, first_line
from bsmamba2_cluster.triton.server_options import ServerOptions

BUSY = ("408", "429", "502", "503", "504")
"""Statuses of a server that may answer the same request later."""


class AbsentModel(ModelError):  # noqa: N818 - says what is missing
    """The server has no such model."""


@dataclass(frozen=True)
class Failure:
    """A failed request."""

    error: Error
    is_temporary: bool = False
    """Whether the same request may succeed later."""


def explain(error: Exception, options: ServerOptions, model: str) -> Failure:
    """Returns what an exception of tritonclient, gevent or the system means.

    Args:
        error: what a request for ``model`` raised.
        options: the server.
        model: the model's name on the server.
    """
    url, cause = options.url, first_line(error)
    status = getattr(error, "status", None)
    if callable(status):  # an InferenceServerException
        message = first_line(Exception(getattr(error, "message", lambda: cause)()))
        return _answered(str(status()), message, url, model)
    if isinstance(error, ssl.SSLCertVerificationError):
        return Failure(
            DeviceError(
                f"the certificate of {url} is not trusted ({cause}): check the host's name, or "
                "give the authority's certificate as ca_file"
            )
        )
    if isinstance(error, socket.gaierror):
        return Failure(DeviceError(f"the host of {url} is unknown ({cause}): check its name"))
    if isinstance(error, TimeoutError):
        return Failure(
            DeviceError(
                f"{url} did not answer within {options.deadline_s:g} s (deadline_s): give it more "
                "time, or add instances to the server"
            )
        )
    if isinstance(error, ssl.SSLError):
        return Failure(
            DeviceError(f"{url} does not accept a TLS connection ({cause}): check url and port")
        )
    if isinstance(error, ConnectionRefusedError):
        refused = f"no server answers at {url} ({cause}): start it, or check host and port"
        return Failure(DeviceError(refused), is_temporary=True)
    lost = f"the connection to {url} failed ({cause}): check that the server is running"
    return Failure(DeviceError(lost), is_temporary=True)


def _answered(status: str, message: str, url: str, model: str) -> Failure:
    """Returns what an answer with an error means."""
    if "START flag" in message:
        return Failure(
            DeviceError(
                f"{url} no longer has the states of this stream: it restarted, or the stream "
                "paused for longer than the server keeps them; reset the stream"
            )
        )
    if status in BUSY:
        busy = f"{url} is busy or not ready ({status}: {message}): try again, or add instances"
        return Failure(DeviceError(busy), is_temporary=True)
    if status in ("401", "403"):
        return Failure(
            DeviceError(f"{url} refuses the request ({status}: {message}): check headers")
        )
    if status == "404" or "unknown model" in message.lower():
        return Failure(AbsentModel(f"{url} has no model {model!r} ({message}): check its name"))
    if status.startswith("4"):
        return Failure(
            ModelError(
                f"the model {model!r} at {url} refuses its input ({message}): write its repository "
                "again with bsmamba2 triton"
            )
        )
    return Failure(
        DeviceError(f"the model {model!r} at {url} failed ({status}: {message}): see its log")
    )
