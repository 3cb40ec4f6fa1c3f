"""How the caller of a long call follows its progress and stops it."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event
from typing import TypeAlias

from bsmamba2.errors import Cancelled

Progress: TypeAlias = Callable[[float, float], None]
"""Called as ``progress(done_seconds, total_seconds)`` of the song. Raising from it, e.g.
:class:`bsmamba2.Cancelled`, stops the work and leaves nothing half-written."""


def require_not_cancelled(cancel: Event | None) -> None:
    """Checks whether the caller wants to stop; called before every run of a model.

    Raises:
        Cancelled: the event is set.
    """
    if cancel is not None and cancel.is_set():
        raise Cancelled("stopped by the caller")
