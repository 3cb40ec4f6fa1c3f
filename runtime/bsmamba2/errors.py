"""What can go wrong, as one tree.

    Error
    ├── AudioError      the audio: unreadable, of a shape that is not separated, not finite
    ├── ModelError      the model: unreadable, of an unknown kind, damaged, not reproducing itself
    ├── DeviceError     the device: asked for and absent, or unable to run the model
    ├── MissingExtra    a part of bsmamba2 that is not installed
    └── Cancelled       the caller asked to stop

Every message is one sentence for a person: which argument, what was allowed, what came, and what
mends it. The command line prints it and exits with status 2.
"""


class Error(Exception):
    """Everything that bsmamba2 raises on purpose."""


class AudioError(Error):
    """Audio that cannot be read, written or separated."""


class ModelError(Error):
    """A model, checkpoint or engine that cannot be used."""


class DeviceError(Error):
    """A device that was asked for and is not there, or cannot run the model."""


class MissingExtra(Error, ImportError):  # noqa: N818 - named for what it tells, not for its kind
    """A part of bsmamba2 that is not installed; the message holds the line that installs it."""


class Cancelled(Error):  # noqa: N818 - the caller asked for it
    """The caller stopped the work; nothing half-made is left behind."""


def printable(text: str, limit: int = 200) -> str:
    """Text from a file of a stranger's, fit for one line on a terminal."""
    shown = "".join(letter if letter.isprintable() else "�" for letter in text[: limit + 1])
    return shown if len(text) <= limit else f"{shown[:limit]}…"
