"""The errors that bsmamba2 raises, and functions that build their messages.

    Error
    ├── AudioError      the audio: unreadable, of an unsupported shape, not finite
    ├── ModelError      the model: unreadable, of an unknown kind, damaged, failing its check
    ├── DeviceError     the device: requested but absent, or unable to run the model
    ├── MissingExtra    a part of bsmamba2 that is not installed
    └── Cancelled       the caller stopped the work

Every message is one sentence that states which argument is wrong, what is allowed, what it got, and
how to fix it. The command line prints the message, with arguments as options, and exits with
status 2.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable

_ARGUMENT = re.compile(
    r"\b(backend|clip|device|io|overwrite|precision|resume|streaming|subtype|target|weights)"
    r"=(True|'[^']*')"
    r"|\b(block_ms|headroom_ms|kernel_at|lookahead_ms|start_s|duration_s)(?= must )"
)
"""An argument that a message tells the caller to give, or that it is about."""


class Error(Exception):
    """Base class of every error that bsmamba2 raises on purpose."""


class AudioError(Error):
    """Audio that cannot be read, written or separated."""


class ModelError(Error):
    """A model, checkpoint or engine that cannot be used."""


class DeviceError(Error):
    """A device that was requested but is absent or cannot run the model."""


class MissingExtra(Error, ImportError):  # noqa: N818 - public; named after what is missing
    """A part of bsmamba2 that is not installed; the message holds the command that installs it."""


class Cancelled(Error):  # noqa: N818 - public; not a fault, the caller requested it
    """The caller stopped the work; no partial file is left behind."""


def for_command_line(message: str) -> str:
    """Writes the arguments in a message as options: ``device='cpu'`` becomes ``--device cpu``.

    Errors name arguments as Python calls them; the command line prints them as it calls them.
    """

    def option(found: re.Match[str]) -> str:
        name, value = found[1] or found[3], found[2]
        flag = f"--{name.removesuffix('_s').replace('_', '-')}"
        return flag if value in (None, "True") else f"{flag} {value[1:-1]}"

    return _ARGUMENT.sub(option, message)


def printable(text: str, limit: int = 200) -> str:
    """Shortens text from an untrusted file, and replaces what cannot be printed in one line."""
    shown = "".join(letter if letter.isprintable() else "�" for letter in text[: limit + 1])
    return shown if len(text) <= limit else f"{shown[:limit]}…"


def one_line(text: object) -> str:
    """Formats a message or a path for printing, without what acts on a terminal.

    Bytes of a name that are not text stay as they are (as surrogates), unless a terminal could
    take them for a control character.
    """
    letters = str(text)[: 1 << 16]
    return "".join(
        letter if letter.isprintable() or "\udca0" <= letter <= "\udcff" else "�"
        for letter in letters
    )


def shown(value: object) -> str:
    """Returns the repr of a value from an untrusted file, without writing all of it out first."""
    try:
        return printable(_bounded.repr(value))
    except ValueError:  # an integer of thousands of digits
        return f"a very large {type(value).__name__}"


_bounded = reprlib.Repr()
_bounded.maxlevel = 4
_bounded.maxdict = _bounded.maxlist = _bounded.maxtuple = _bounded.maxset = 12
_bounded.maxstring = _bounded.maxother = 250


def first_line(error: BaseException, limit: int = 200) -> str:
    """Returns the first line of another library's error, to quote in our messages.

    Errors of the operating system and of libsndfile store the cause separately from the path; only
    the cause is returned. For an error without a message, the name of its class is returned.
    """
    cause = getattr(error, "strerror", None) or getattr(error, "error_string", None) or error
    line = next(iter(str(cause).strip().splitlines()), type(error).__name__)
    return printable(line, limit).rstrip(".")


def require(
    holds: bool, name: str, allowed: str, got: object, kind: type[Error] = ModelError
) -> None:
    """Raises an error about an argument unless ``holds`` is true.

    Raises:
        Error: of the given kind: ``{name} must be {allowed}; got {got}``.
    """
    if not holds:
        raise kind(f"{name} must be {allowed}; got {shown(got)}")


def not_one_of(name: str, allowed: Iterable[str], got: object) -> str:
    """Returns the message for an argument that must be one of a few words."""
    return f"{name} must be one of {', '.join(allowed)}; got {shown(got)}"
