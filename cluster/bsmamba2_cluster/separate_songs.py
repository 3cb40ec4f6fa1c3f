"""``SeparateSongs``, a class for ``Dataset.map_batches``: songs in storage to stems in storage."""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bsmamba2 import AudioError, Error, Separator
from bsmamba2.batch.plan import OutputOptions
from bsmamba2.errors import one_line
from bsmamba2.files.hashing import file_sha256
from bsmamba2.files.song_file import SongFile
from bsmamba2_cluster import in_ray, metrics
from bsmamba2_cluster.address import open_storage
from bsmamba2_cluster.claim import Busy, SetAside
from bsmamba2_cluster.recipe import Recipe
from bsmamba2_cluster.record import Record, Stem
from bsmamba2_cluster.song_work import SongWork, complete
from bsmamba2_cluster.spool import Spool
from bsmamba2_cluster.storage import Entry, Missing, Storage

if TYPE_CHECKING:
    from bsmamba2.batch.plan import FilePlan

log = logging.getLogger("bsmamba2.cluster")

SPOOL_GIB = 20.0
CLAIM_S = 60.0
"""A claim that was not renewed for so long belongs to a dead run."""

STATUSES = ("done", "already", "failed", "set aside", "busy")
"""Separated now; done before; failed; killed its workers; being separated by another run."""


@dataclass(frozen=True)
class Result:
    """One row about one song."""

    song: str
    """Its address."""
    status: str
    """One of :data:`STATUSES`."""
    error: str = ""
    outputs: str = "{}"
    """JSON: the address of each stem."""
    audio_s: float = 0.0
    """Length of the song."""
    seconds: float = 0.0
    """Time from its download to its record."""
    worker: str = ""
    device: str = ""
    bytes: int = 0
    """Size of the song, if the batch stated it."""
    holder: str = ""
    """Of a busy song: changes as long as the other run lives."""


class SeparateSongs:
    """Separates songs from a storage into another, each exactly once.

    Ray creates one per actor, which loads the model once::

        ray.data.from_items([{"song": "s3://music/albums/a/song.flac"}]).map_batches(
            SeparateSongs,
            fn_constructor_kwargs={"source": "s3://music/albums", "destination": "s3://music/stems"},
            batch_size=1, num_gpus=0.5, compute=ray.data.ActorPoolStrategy(size=8),
        )

    A batch has the addresses of songs in the column ``song``, and one row of :class:`Result` comes
    out per song. No song raises: a failure is a row. Where the columns ``bytes`` and ``version``
    (the ETag) are present, a song that has changed since is a failure.

    Args:
        source, destination: addresses, see :func:`~bsmamba2_cluster.address.open_storage`. The
            folders of a song below the source become folders of its stems.
        model, device: as for :class:`bsmamba2.Separator`. A model may also be an address in
            storage, from which each actor downloads it.
        spool_gib: the most that a song and its stems take on the worker's disk; a song that needs
            more is a failure.
        run: an id that all actors of one run share, and no other run has. Default: a random one,
            with which a song that kills its worker is not noticed.
        claim_s: how long a claim that is not renewed holds.
        overwrite: whether files that are not stems of the song may be replaced.
        options: ``stems``, ``overlap``, ``format``, ``subtype``, ``clip``, ``template``,
            ``bitrate`` and ``speed`` of :class:`~bsmamba2.batch.plan.OutputOptions`.

    Raises:
        StorageError, AudioError, ModelError, DeviceError: an argument cannot be used, or the
            destination has stems of another recipe.
    """

    def __init__(
        self,
        source: str,
        destination: str,
        model: str | None = None,
        device: str = "auto",
        *,
        spool_gib: float = SPOOL_GIB,
        run: str | None = None,
        claim_s: float = CLAIM_S,
        overwrite: bool = False,
        **options: Any,
    ) -> None:
        in_ray.prepare()
        self._source, self._destination = open_storage(source), open_storage(destination)
        self._spool = Spool(spool_gib)
        self._options = OutputOptions(**options)
        path = fetch_model(model, self._spool.folder("model")) if model else None
        self._separator = Separator(path, device, speed=self._options.speed)
        self._recipe = Recipe.of(self._source.address, self._separator.manifest, self._options)
        self._recipe.settle(self._destination)
        self._run = run or secrets.token_hex(8)
        self._claim_s, self._overwrite = claim_s, overwrite
        self._worker = f"{socket.gethostname()}/{os.getpid()}"
        self._meters = metrics.Meters(self._separator.device)

    def __call__(self, batch: Mapping[str, Iterable[Any]]) -> dict[str, list[Any]]:
        """Separates the songs of a batch, one after the other."""
        columns = {name: list(column) for name, column in batch.items()}
        rows = [{name: columns[name][n] for name in columns} for n in range(len(columns["song"]))]
        results = [asdict(self._result(row)) for row in rows]
        return {name: [result[name] for result in results] for name in Result.__annotations__}

    def _result(self, row: Mapping[str, Any]) -> Result:
        address, start = str(row["song"]), time.perf_counter()
        size = int(row.get("bytes") or 0)
        about: dict[str, Any] = {
            "worker": self._worker,
            "device": self._separator.device,
            "bytes": size,
        }
        try:
            status, record = self._separate(row)
        except Busy as busy:
            return Result(address, "busy", holder=busy.holder, **about)
        except Exception as error:
            status = "set aside" if isinstance(error, SetAside) else "failed"
            text = _sentence(address, error)
            log.warning("%s [worker %s]", one_line(text), self._worker)
            result = Result(address, status, text, **about)
        else:
            outputs = {n: self._destination.address_of(s.key) for n, s in record.outputs.items()}
            facts = record.facts
            audio_s, seconds = float(facts.get("audio_s", 0)), float(facts.get("seconds", 0))
            result = Result(
                address, status, "", json.dumps(outputs), audio_s, seconds, self._worker,
                str(facts.get("device", "")), size,
            )  # fmt: skip
            log.info("%s: %s [worker %s]", one_line(address), status, self._worker)
        self._meters.count(result.status, result.audio_s, time.perf_counter() - start)
        return result

    def _separate(self, row: Mapping[str, Any]) -> tuple[str, Record]:
        work = SongWork(
            self._source,
            self._destination,
            self._entry(row),
            self._recipe,
            overwrite=self._overwrite,
        )
        record, was_done = complete(
            work,
            self._make,
            run=self._run,
            worker=self._worker,
            beat_s=self._claim_s / 4,
            dead_holder=str(row.get("holder") or ""),
        )
        # A worker of this run may have finished it and died before Ray knew.
        is_ours = not was_done or record.facts.get("run") == self._run
        return "done" if is_ours else "already", record

    def _entry(self, row: Mapping[str, Any]) -> Entry:
        address = str(row["song"])
        if not address.startswith(f"{self._source.address}/"):
            raise AudioError(f"song must be below {self._source.address}; got {one_line(address)}")
        key = address.removeprefix(f"{self._source.address}/")
        if row.get("version"):
            return Entry(key, int(row["bytes"]), str(row["version"]), datetime.now(UTC))
        found = self._source.head(key)
        if found is None:
            raise Missing(f"{one_line(address)} does not exist: check its name")
        return found

    def _make(self, work: SongWork) -> None:
        """Downloads the song, separates it, and commits its stems."""
        song, start = work.song, time.perf_counter()
        self._spool.require_room(song.size)
        with self._spool.song() as (songs, stems):
            path = songs / song.key.rpartition("/")[2]
            self._source.download(song, path)
            try:
                files, audio_s = self._separate_file(work, path, stems)
            except Error as error:  # that names the file on this disk
                text = str(error).replace(str(path), self._source.address_of(song.key))
                raise type(error)(text) from None
            facts = {
                "audio_s": round(audio_s, 3),
                "seconds": round(time.perf_counter() - start, 3),
                "device": self._separator.device,
                "worker": self._worker,
                "run": self._run,
            }
            work.commit(files, facts)

    def _separate_file(
        self, work: SongWork, path: Path, stems: Path
    ) -> tuple[dict[str, tuple[Path, Stem]], float]:
        plan = self._options.plan(path, stems, self._separator.manifest)
        self._spool.require_room(work.song.size + stem_bytes(path, plan))
        folder = work.song.key.rpartition("/")[0]

        def key(file: Path) -> str:
            return f"{folder}/{file.relative_to(stems).as_posix()}".lstrip("/")

        work.require_free([key(file) for file in plan.outputs.values()])
        done_s = 0.0

        def watch(done: float, total: float) -> None:
            nonlocal done_s
            done_s = done
            self._spool.require_within()

        outputs = self._separator.separate_planned(plan, progress=watch)
        described = {
            name: (file, Stem(key(file), file.stat().st_size, file_sha256(file)))
            for name, file in outputs.items()
        }
        return described, done_s


def stem_bytes(path: Path, plan: FilePlan) -> int:
    """Returns the most bytes that the stems of a song can take, by its header."""
    with SongFile(path) as song:
        samples = song.samples * song.channels
    # While a stem that exceeds full scale is rewritten as 32-bit float, both versions exist.
    twice = 4 if plan.encoding.bits and plan.clip == "float" else 0
    return samples * (plan.encoding.sample_bytes + twice) * len(plan.outputs)


def fetch_model(model: str, folder: Path) -> str:
    """Returns the name or path of a model; one in storage is downloaded into the folder.

    Raises:
        StorageError: it cannot be read.
    """
    if "://" not in model:
        return model
    parent, _, name = model.rpartition("/")
    storage: Storage = open_storage(parent)
    entry = storage.head(name)
    if entry is None:
        raise Missing(f"the model {model} does not exist: check its address")
    storage.download(entry, folder / name)
    return str(folder / name)


def _sentence(address: str, error: Exception) -> str:
    where = one_line(address)
    if isinstance(error, Error):
        return str(error) if where in str(error) else f"{where}: {error}"
    if isinstance(error, MemoryError):
        return f"{where}: the worker has too little memory for it: give workers more"
    if isinstance(error, OSError) and error.strerror:  # its text would name a file of this disk
        return (
            f"{where}: the worker's disk cannot hold it ({error.strerror}): a name may have 255 "
            "bytes; otherwise check the space of BSMAMBA2_SPOOL"
        )
    return f"{where}: {type(error).__name__}: {error}: this is a bug in bsmamba2, please report it"
