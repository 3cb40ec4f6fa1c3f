"""``separate_library``: all songs of a source into a destination, on a cluster or one machine."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bsmamba2 import Separator
from bsmamba2.batch.plan import OutputOptions
from bsmamba2.files.hashing import file_sha256
from bsmamba2_cluster.pools import choose_pools
from bsmamba2_cluster.ray_run import RayRun, Watch, connect, node_resources
from bsmamba2_cluster.recipe import FOLDER, Recipe
from bsmamba2_cluster.run_report import FailureReport, RunSummary
from bsmamba2_cluster.separate_songs import CLAIM_S, SPOOL_GIB
from bsmamba2_cluster.song_list import SongList, list_songs
from bsmamba2_cluster.storage import Storage, open_storage
from bsmamba2_cluster.tidy import remove_leftovers, require_conditional_puts

MODEL_SUFFIXES = (".onnx", ".ckpt", ".pt", ".pth", ".th", ".safetensors")
"""Models that are one file, which workers on other machines download from the destination."""


@dataclass
class Library:
    """A source, a destination and what makes its stems; listed before anything is separated.

    Args:
        source, destination: addresses, see :func:`~bsmamba2_cluster.storage.open_storage`.
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
        separator = Separator(self.model, "auto", load=False)
        self.recipe = Recipe.of(self.source.address, separator.manifest, chosen)

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

    def model_for(self, on: str | None) -> str | None:
        """Returns the model as workers find it: a file goes into the destination if they are on
        other machines."""
        if self.model is None or not Path(self.model).is_file():
            return self.model
        path = Path(self.model).absolute()
        if on is None or path.suffix.lower() not in MODEL_SUFFIXES:
            return str(path)
        key = f"{FOLDER}/models/{file_sha256(path)}/{path.name}"
        if self.destination.head(key) is None:
            self.destination.upload(path, key)
        address = self.destination.address_of(key)
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
                "model": library.model_for(on),
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
