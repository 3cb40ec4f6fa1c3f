"""Prepares a process that Ray started: its log, and its share of the machine's cores."""

from __future__ import annotations

import fcntl
import logging
import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import ray

_held: list[int] = []
"""Locks of this process's cores."""


def prepare() -> None:
    """Logs to the worker's own log, and keeps to as many cores as Ray assigned to the actor.

    ONNX Runtime starts one thread per core that the process may use. Outside of Ray's workers this
    does nothing.
    """
    if not ray.is_initialized() or ray.get_runtime_context().get_actor_id() is None:
        return
    log = logging.getLogger("bsmamba2")
    if not log.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)
    assigned = ray.get_runtime_context().get_assigned_resources().get("CPU", 0)
    if hasattr(os, "sched_setaffinity") and assigned >= 1:
        use_cores(int(assigned), Path(tempfile.gettempdir()))


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
