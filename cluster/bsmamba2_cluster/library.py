"""``separate_library``: all songs of a source into a destination, on a cluster or one machine."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bsmamba2 import Error, Separator
from bsmamba2.batch.plan import OutputOptions
from bsmamba2.files.hashing import file_sha256
from bsmamba2_cluster.address import open_storage
from bsmamba2_cluster.pools import choose_pools
from bsmamba2_cluster.ray_run import RayRun, Watch, connect, node_resources
from bsmamba2_cluster.recipe import FOLDER, Recipe
from bsmamba2_cluster.run_report import FailureReport, RunSummary
from bsmamba2_cluster.separate_songs import CLAIM_S, SPOOL_GIB, fetch_model
from bsmamba2_cluster.song_list import SongList, list_songs
from bsmamba2_cluster.storage import Storage
from bsmamba2_cluster.tidy import remove_leftovers, require_conditional_puts

MODEL_SUFFIXES = (".onnx", ".ckpt", ".pt", ".pth", ".th", ".safetensors")
"""Models that are one file, which workers on other machines download from the destination."""


@dataclass
class Library:
    """A source, a destination and what makes its stems; listed before anything is separated.

    Args:
        source, destination: addresses, see :func:`~bsmamba2_cluster.address.open_storage`.
        model: as for :class:`bsmamba2.Separator`.
        overwrite: replace what the destination has, even of another recipe.
        options: of :class:`~bsmamba2.batch.plan.OutputOptions`.

    Raises:
        StorageError, AudioError, ModelError: an argument cannot be used.
    """

    source: Storage
    destination: Storage
    model: str | None
    options: Mapping[str, Any]
    overwrite: bool = False
    recipe: Recipe = field(init=False)

    def __post_init__(self) -> None:
        chosen = OutputOptions(**self.options)
        with tempfile.TemporaryDirectory() as folder:
            path = fetch_model(self.model, Path(folder)) if self.model else None
            manifest = Separator(path, "auto", load=False).manifest
        self.recipe = Recipe.of(self.source.address, manifest, chosen)

    def prepare(self) -> None:
        """Checks and tidies the destination, and makes the recipe its own.

        Raises:
            StorageError: it has another recipe, or its store cannot keep promises.
        """
        now = require_conditional_puts(self.destination)
        self.recipe.settle(self.destination, overwrite=self.overwrite)
        remove_leftovers(self.destination, now)

    def songs(self, failures: FailureReport) -> SongList:
        """Lists what is to be done; refused songs go into the report."""
        return list_songs(
            self.source,
            self.destination,
            self.recipe,
            lambda song, error: failures.add(song, "failed", f"{song}: {error}"),
        )


def ship_model(model: str | None, destination: Storage) -> str | None:
    """Writes a model file into the destination, from where workers on other machines read it.

    Returns:
        Its address; the model as it is, if it is a name, an address, or not one file.
    """
    if model is None or "://" in model or Path(model).suffix.lower() not in MODEL_SUFFIXES:
        return model
    path = Path(model).absolute()
    if not path.is_file():
        return model
    key = f"{FOLDER}/models/{file_sha256(path)}/{path.name}"
    if destination.head(key) is None:
        destination.upload(path, key)
    address = destination.address_of(key)
    return address if "://" in address else f"file://{address}"


def separate_library(
    source: str,
    destination: str,
    model: str | None = None,
    *,
    on: str | None = None,
    device: str = "auto",
    workers: int | None = None,
    cpus_per_worker: float | None = None,
    gpus_per_worker: float | None = None,
    cpu_workers: int = 0,
    limit: int | None = None,
    spool_gib: float = SPOOL_GIB,
    claim_s: float = CLAIM_S,
    overwrite: bool = False,
    watch: Watch | None = None,
    **options: Any,
) -> RunSummary:
    """Separates all songs of a source that the destination has no record of.

    Every run is a resumed run, and several runs may share the work. A song that fails is a row of
    the report; nothing that one song does stops the others.

    Args:
        source, destination: addresses, e.g. ``s3://music/albums``, or folders.
        model: as for :class:`bsmamba2.Separator`.
        on: a cluster, ``ray://HEAD:10001`` or, on one of its machines, ``auto``. Default: the one
            that this process is connected to, otherwise this machine alone.
        device, workers, cpus_per_worker, gpus_per_worker, cpu_workers: see
            :func:`~bsmamba2_cluster.pools.choose_pools`.
        limit: separate at most so many songs, of all sizes, to measure a rate.
        spool_gib, claim_s: as for :class:`SeparateSongs`.
        overwrite: replace what the destination has, even of another recipe.
        watch: receives the summary after every song.
        options: as for :class:`SeparateSongs`.

    Returns:
        The counts, times, and the address of the report of failures.

    Raises:
        StorageError, AudioError, ModelError, DeviceError: an argument cannot be used.
    """
    if on is not None and on.startswith("ray://"):
        shipped = ship_model(model, open_storage(destination))
        return run_on_head(
            on,
            watch,
            source,
            destination,
            shipped,
            {
                "device": device,
                "workers": workers,
                "cpus_per_worker": cpus_per_worker,
                "gpus_per_worker": gpus_per_worker,
                "cpu_workers": cpu_workers,
                "limit": limit,
                "spool_gib": spool_gib,
                "claim_s": claim_s,
                "overwrite": overwrite,
                **options,
            },
        )
    library = Library(open_storage(source), open_storage(destination), model, options, overwrite)
    library.prepare()
    run = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
    failures = FailureReport(library.destination, run)
    listed = library.songs(failures).limited(limit)
    summary = RunSummary(
        run,
        library.source.address,
        library.destination.address,
        songs=len(listed.songs) + listed.refused,
        bytes=listed.bytes,
        already=listed.done,
        failed=listed.refused,
    )
    try:
        if len(listed.songs):
            connect(on)
            pools = choose_pools(
                node_resources(), device, workers, cpus_per_worker, gpus_per_worker, cpu_workers
            )
            summary.workers = sum(pool.workers for pool in pools)
            summary.devices = ", ".join(f"{p.workers} on {p.device}" for p in pools)
            settings = {
                "source": library.source.address,
                "destination": library.destination.address,
                "model": _for_workers(library, on),
                "spool_gib": spool_gib,
                "claim_s": claim_s,
                "overwrite": overwrite,
                **options,
            }
            RayRun(summary, failures, listed.songs, pools, settings, watch).work()
    finally:
        failures.flush()
        summary.failures = failures.address
        if summary.done:
            summary.keep(library.destination)
    return summary


def _for_workers(library: Library, on: str | None) -> str | None:
    """Returns the model as workers find it."""
    if on is not None:
        return ship_model(library.model, library.destination)
    is_file = library.model is not None and os.path.isfile(library.model)  # noqa: PTH113
    return os.path.abspath(str(library.model)) if is_file else library.model  # noqa: PTH100


class _OnHead:
    """Runs :func:`separate_library` in an actor, because Ray Data does not run over Ray's client.

    It is on the head, which is no spot machine, and ends with the client: then the next run
    continues.
    """

    def __init__(self) -> None:
        self._summary: RunSummary | None = None

    def run(self, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> RunSummary:
        return separate_library(*arguments, watch=self._keep, **options)

    def summary(self) -> RunSummary | None:
        return self._summary

    def _keep(self, summary: RunSummary) -> None:
        self._summary = summary


def run_on_head(
    on: str,
    watch: Watch | None,
    source: str,
    destination: str,
    model: str | None,
    options: Mapping[str, Any],
) -> RunSummary:
    """Runs in the cluster what a client outside of it asks for, and reports every second.

    Raises:
        StorageError, AudioError, ModelError, DeviceError: as :func:`separate_library`.
    """
    import ray

    connect(on)
    at_head = {"node:__internal_head__": 0.001}
    remote: Any = ray.remote
    actor = remote(num_cpus=0, max_concurrency=2, resources=at_head)(_OnHead)
    head = actor.remote()
    running = head.run.remote((source, destination, model), dict(options))
    try:
        while True:
            finished, _ = ray.wait([running], timeout=1)
            if watch is not None and (summary := ray.get(head.summary.remote())) is not None:
                watch(summary)
            if finished:
                result: RunSummary = ray.get(running)
                return result
    except ray.exceptions.RayTaskError as error:
        raise error.cause if isinstance(error.cause, Error) else error from None
    finally:
        ray.kill(head)
