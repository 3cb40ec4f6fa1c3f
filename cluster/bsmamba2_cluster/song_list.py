"""The songs of a library: listed in pages, compared with the records, ordered by size.

Memory is bounded: a listing is read in pages of 1,000 keys; for each song there remain a row of an
Arrow table (its key and ETag, about 100 bytes) and 8 bytes against equal names, and for each record
32 bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bsmamba2.batch.plan import SUFFIXES
from bsmamba2.files.naming import Template
from bsmamba2_cluster.recipe import Recipe
from bsmamba2_cluster.record import RECORDS, song_id, version_id
from bsmamba2_cluster.storage import Storage, StorageError

if TYPE_CHECKING:
    import numpy.typing as npt

SCHEMA = pa.schema([("key", pa.string()), ("bytes", pa.int64()), ("version", pa.string())])

MOST_PER_BLOCK = 32
"""Songs that a worker gets at once, far from the end of a large library."""

SHARE = 4
"""A block has at most this part of the bytes that are left per worker, so blocks shrink."""

Refused = Callable[[str, str], object]
"""Receives the address of a song that cannot be separated, and why."""


@dataclass(frozen=True)
class SongList:
    """The songs of a source that have no record yet."""

    songs: pa.Table
    """Columns of :data:`SCHEMA`, the largest first."""
    done: int
    """Songs that have a record."""
    done_bytes: int
    refused: int
    """Songs that cannot be separated, each of which was reported."""

    @property
    def bytes(self) -> int:
        """Bytes of the songs that are left."""
        return int(pc.sum(self.songs["bytes"]).as_py() or 0)

    def limited(self, songs: int | None) -> SongList:
        """Returns a list of at most so many songs, spread evenly over the sizes."""
        count = len(self.songs)
        if songs is None or songs >= count:
            return self
        rows = [(2 * n + 1) * count // (2 * songs) for n in range(songs)]
        return SongList(self.songs.take(rows), self.done, self.done_bytes, self.refused)


def list_records(destination: Storage) -> npt.NDArray[np.bytes_]:
    """Returns a sorted array with 32 bytes for each record of a destination."""
    pages = [
        np.array([_short(*e.key.split("/")[-2:]) for e in page if e.key.count("/") == 4], "S32")
        for page in destination.pages(RECORDS)
    ]
    found: npt.NDArray[np.bytes_] = np.concatenate([np.array([], "S32"), *pages])
    return np.sort(found)


def list_songs(source: Storage, destination: Storage, recipe: Recipe, refused: Refused) -> SongList:
    """Lists the songs that a run has to separate.

    Hidden files and folders, files with other suffixes than :data:`SUFFIXES`, and a destination
    inside the source are left out, as by ``bsmamba2 separate``.

    Args:
        refused: receives songs whose keys are unsafe, and songs whose stems would have the names
            of an earlier song's.

    Raises:
        StorageError: a listing failed.
    """
    records = list_records(destination)
    template = Template(recipe.options["template"])
    skipped = _inside(destination.address, source.address)
    tables: list[pa.Table] = []
    names: list[npt.NDArray[np.uint64]] = []
    done = done_bytes = count = 0

    def refuse(key: str, error: StorageError) -> None:
        nonlocal count
        count += 1
        refused(source.address_of(key).rstrip("/"), str(error))

    for page in source.pages(refused=refuse):
        songs = [e for e in page if is_song(e.key) and not (skipped and e.key.startswith(skipped))]
        if not songs:
            continue
        ids = [_short(song_id(e.key), version_id(e.size, e.version, recipe)) for e in songs]
        is_done = _contains(records, np.array(ids, "S32"))
        names.append(np.array([_name(e.key, template, recipe.model) for e in songs], np.uint64))
        columns = [e.key for e in songs], [e.size for e in songs], [e.version for e in songs]
        table = pa.table([*columns], schema=SCHEMA).append_column("done", pa.array(is_done))
        tables.append(table)
    listed = pa.concat_tables(tables) if tables else SCHEMA.empty_table()
    if tables:
        all_names = np.concatenate(names)
        _, first = np.unique(all_names, return_index=True)
        is_first = np.zeros(len(all_names), bool)
        is_first[first] = True
        for key in listed.filter(pa.array(~is_first))["key"]:
            count += 1
            refused(
                source.address_of(key.as_py()),
                "its stems would have the names of another song's: rename one of them, or use a "
                "template with {source_ext}",
            )
        listed = listed.filter(pa.array(is_first))
        finished = listed.filter(listed["done"])
        done, done_bytes = len(finished), int(pc.sum(finished["bytes"]).as_py() or 0)
        listed = listed.filter(pc.invert(listed["done"])).drop_columns("done")
        listed = listed.sort_by([("bytes", "descending"), ("key", "ascending")])
    return SongList(listed, done, done_bytes, count)


def is_song(key: str) -> bool:
    """Whether a key counts as a song: by its suffix, and not hidden."""
    path = PurePosixPath(key)
    hidden = any(part.startswith(".") for part in path.parts)
    return path.suffix.lower() in SUFFIXES and not hidden


def block_sizes(sizes: npt.NDArray[np.int64], workers: int) -> Iterator[int]:
    """Yields how many songs go to a worker at once: many first, one at a time in the end.

    Large blocks keep the number of Ray's tasks small. A block is measured in bytes, so that no
    worker gets several of the longest songs, and the last workers do not wait.

    Args:
        sizes: bytes of the songs, in their order.
        workers: how many share them.
    """
    ends, at = np.cumsum(np.maximum(sizes, 1)), 0
    while at < len(ends):
        start = int(ends[at - 1]) if at else 0
        share = (int(ends[-1]) - start) // (SHARE * workers)
        fitting = int(np.searchsorted(ends, start + share, "right")) - at
        count = max(1, min(MOST_PER_BLOCK, fitting))
        yield count
        at += count


def _short(song: str, version: str) -> str:
    return song[:16] + version[:16]


def _contains(
    records: npt.NDArray[np.bytes_], wanted: npt.NDArray[np.bytes_]
) -> npt.NDArray[np.bool_]:
    if not len(records):
        return np.zeros(len(wanted), bool)
    at = np.minimum(np.searchsorted(records, wanted), len(records) - 1)
    found: npt.NDArray[np.bool_] = records[at] == wanted
    return found


def _name(key: str, template: Template, model: str) -> int:
    """Returns 64 bits of the digest of a stem's name, without suffix."""
    folder, _, name = key.rpartition("/")
    base: Any = f"{folder}/{template.base(name, 'stem', model)}"
    return int.from_bytes(hashlib.sha256(base.encode()).digest()[:8])


def _inside(inner: str, outer: str) -> str:
    """Returns the folder of ``outer`` that ``inner`` is, with a slash; empty if it is outside.

    Raises:
        StorageError: they are the same, or stems would be written among the songs.
    """
    if inner == outer or outer.startswith(f"{inner}/"):
        raise StorageError(
            f"destination must not be the source or a folder above it; got {inner}: choose "
            "another, for example a folder inside the source"
        )
    return inner.removeprefix(f"{outer}/") + "/" if inner.startswith(f"{outer}/") else ""
