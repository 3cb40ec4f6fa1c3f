"""Cores of a machine, shared by its workers without talking to each other."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_held: list[int] = []
"""Locks of this process's cores."""


def use_cores(count: int, folder: Path) -> set[int]:
    """Restricts this process to cores that no other worker on the machine has taken.

    Args:
        count: the number of cores.
        folder: of the lock files, one per core; a lock ends with its process.

    Returns:
        The cores. If too few are free, the process may use those that it could before.
    """
    usable = os.sched_getaffinity(0)
    if count >= len(usable):
        return usable
    taken: set[int] = set()
    locks: list[int] = []
    for core in sorted(usable):
        if len(taken) == count:
            break
        with suppress(OSError):
            name = folder / f"bsmamba2-core-{os.getuid()}-{core}.lock"
            lock = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(lock)
                continue
            locks.append(lock)
            taken.add(core)
    if len(taken) < count:
        for lock in locks:
            os.close(lock)
        return usable
    _held.extend(locks)
    os.sched_setaffinity(0, taken)
    return taken
