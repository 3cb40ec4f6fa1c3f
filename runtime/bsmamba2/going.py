"""How a call of minutes goes: it tells how far it is, and stops when it is told to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from threading import Event
from typing import TYPE_CHECKING, Any, TypeAlias

from bsmamba2.errors import Cancelled

if TYPE_CHECKING:
    import numpy.typing as npt

    from bsmamba2.array import Exact
    from bsmamba2.separation import Separation

Progress: TypeAlias = Callable[[float, float], None]
"""Called as ``progress(done_seconds, total_seconds)`` of the song. Raising from it, e.g.
:class:`bsmamba2.Cancelled`, stops the work and leaves nothing half-written."""


def through(
    separation: Separation,
    blocks: Iterable[npt.NDArray[Any]],
    sample_rate: float,
    samples: int,
    progress: Progress | None,
    cancel: Event | None,
) -> Iterator[Exact]:
    """Pushes the blocks and flushes, telling after each how much has come out."""
    done = 0
    for block in blocks:
        require_going(cancel)
        outputs = separation.push(block)
        done += outputs.shape[-1]
        yield outputs
        if progress:
            progress(done / sample_rate, max(done, samples) / sample_rate)
    require_going(cancel)
    outputs = separation.flush()
    done += outputs.shape[-1]
    yield outputs
    if progress:
        progress(done / sample_rate, done / sample_rate)


def require_going(cancel: Event | None) -> None:
    """Looks whether the caller wants it to go on; to be asked before every run of a model.

    Raises:
        Cancelled: the event is set.
    """
    if cancel is not None and cancel.is_set():
        raise Cancelled("stopped by the caller")
