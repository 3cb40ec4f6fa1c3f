"""Looks after a destination before a run: what its store can do, and what dead runs left."""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import TYPE_CHECKING

from bsmamba2_cluster.recipe import FOLDER
from bsmamba2_cluster.record import WORK, record_key
from bsmamba2_cluster.storage import StorageError

if TYPE_CHECKING:
    from datetime import datetime

    from bsmamba2_cluster.storage import Storage

KEPT = timedelta(days=1)
"""Files of unfinished songs that are older belong to runs that will not come back."""


def require_conditional_puts(destination: Storage) -> datetime:
    """Requires a store that refuses to create an object twice; returns the store's time.

    Some servers ignore the condition (``If-None-Match: *``), and two runs would overwrite each
    other's records.

    Raises:
        StorageError: the store ignores it, or cannot be written.
    """
    key = f"{FOLDER}/probe-{secrets.token_hex(8)}"
    try:
        destination.create(key, b"1")
        if destination.create(key, b"2"):
            raise StorageError(
                f"{destination.address} is on a store that replaces objects which should only be "
                "created (it ignores If-None-Match): choose another store or a newer version of it"
            )
        found = destination.head(key)
        if found is None:
            raise StorageError(
                f"{destination.address} is on a store that does not show an object at once after "
                "it was written: choose another store"
            )
        return found.modified
    finally:
        destination.delete([key])


def remove_leftovers(destination: Storage, now: datetime) -> int:
    """Removes working files of songs that are done, and uncommitted ones older than :data:`KEPT`.

    A committed attempt of a song that is not done stays: a worker publishes it.

    Returns:
        The number of removed objects.
    """
    folders: dict[str, list[str]] = {}
    newest: dict[str, datetime] = {}
    for page in destination.pages(WORK):
        for entry in page:
            folder = entry.key.removeprefix(f"{WORK}/").rsplit("/", entry.key.count("/") - 3)[0]
            folders.setdefault(folder, []).append(entry.key)
            newest[folder] = max(newest.get(folder, entry.modified), entry.modified)
    removed = 0
    for folder, keys in folders.items():
        song, _, version = folder.partition("/")
        is_committed = any(key.endswith("/commit") for key in keys)
        is_old = now - newest[folder] > KEPT and not is_committed
        if is_old or destination.head(record_key(song, version)):
            destination.delete(sorted(keys, key=lambda key: key.endswith("/commit")))
            removed += len(keys)
    return removed
