"""A run on Ray: datasets of songs, mapped by pools of :class:`SeparateSongs`."""

from __future__ import annotations

import hashlib
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

# Before Ray is imported: it reports no usage, and waits longer for its processes on a busy machine.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")
os.environ.setdefault("RAY_agent_register_timeout_ms", "300000")

import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data

from bsmamba2 import DeviceError
from bsmamba2.errors import first_line
from bsmamba2_cluster.run_report import FailureReport, RunSummary
from bsmamba2_cluster.separate_songs import Result, SeparateSongs
from bsmamba2_cluster.song_list import block_sizes

if TYPE_CHECKING:
    from bsmamba2_cluster.pools import Pool

STARTS = 3
"""How often Ray is started: on a busy machine its processes may not be ready in its 30 s."""

Watch = Callable[[RunSummary], object]
"""Receives the summary after every song. It is always the same object."""


def connect(on: str | None) -> None:
    """Connects to a cluster, unless this process is connected to one; or starts Ray here.

    Raises:
        DeviceError: there is no cluster, or Ray does not start.
    """
    if ray.is_initialized():
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "warning"}
    for attempt in range(STARTS):
        try:
            if on is None:
                ray.init(include_dashboard=False, **quiet)
            else:
                ray.init(on, **quiet)
            return
        except Exception as error:  # of many classes, and Exception itself
            ray.shutdown()
            if on is not None:
                raise DeviceError(
                    f"on must be the address of a running cluster, e.g. ray://HEAD:10001; got "
                    f"{on!r} ({first_line(error)}): check the address and that Ray runs there"
                ) from None
            if attempt == STARTS - 1:
                raise DeviceError(
                    f"Ray could not be started on this machine ({first_line(error)}): free memory "
                    "and processors, or name a running cluster"
                ) from None


def disconnect() -> None:
    """Ends the connection, and Ray if :func:`connect` started it; then Ray prints no more."""
    ray.shutdown()


def node_resources() -> list[Mapping[str, float]]:
    """Returns the resources of the cluster's machines."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


class RayRun:
    """The passes of one run over the songs: one, and more for songs that other runs had claimed.

    Args:
        summary, failures: are filled.
        songs: columns of :data:`~bsmamba2_cluster.song_list.SCHEMA`.
        pools: the workers; those of a second pool begin with the shortest songs.
        settings: arguments of :class:`SeparateSongs`, without ``run`` and ``device``.
        watch: receives the summary.
    """

    def __init__(
        self,
        summary: RunSummary,
        failures: FailureReport,
        songs: pa.Table,
        pools: list[Pool],
        settings: Mapping[str, Any],
        watch: Watch | None,
    ) -> None:
        self._summary, self._failures, self._watch = summary, failures, watch
        self._pools, self._settings = pools, settings
        self._claim_s = float(settings["claim_s"])
        self._songs, self._source = songs, summary.source
        self._finished: set[int] = set()
        """Digests of finished songs, if several pools look at each."""
        self._start = time.monotonic()

    def work(self) -> None:
        """Separates the songs."""
        songs, holders = self._songs, dict[str, str]()
        while len(songs):
            first_seen = time.monotonic()
            holders = self._pass(songs, holders)
            rows = [n for n, key in enumerate(songs["key"]) if key.as_py() in holders]
            songs = songs.take(pa.array(rows, pa.int64()))
            # A claim that is the same after this time belongs to a dead run.
            wait_s = first_seen + self._claim_s * 1.25 - time.monotonic()
            if rows and wait_s > 0:
                self._note(f"{len(rows)} songs are with another run")
                time.sleep(wait_s)

    def _pass(self, songs: pa.Table, holders: Mapping[str, str]) -> dict[str, str]:
        """Visits the songs; returns the keys of those that are busy, and their holders."""
        busy: dict[str, str] = {}
        for result in self._results(songs, holders):
            key = result.song.removeprefix(f"{self._source}/")
            if result.status == "busy":
                busy[key] = result.holder
                continue
            if _digest(key) in self._finished:
                continue
            if len(self._pools) > 1:
                self._finished.add(_digest(key))
            self._count(result)
        return {key: on for key, on in busy.items() if _digest(key) not in self._finished}

    def _results(self, songs: pa.Table, holders: Mapping[str, str]) -> Iterator[Result]:
        """Yields the results of all pools; a second pool begins with the shortest songs."""
        arrived: queue.Queue[Result | BaseException | None] = queue.Queue(1000)
        ended = threading.Event()

        def run(number: int, pool: Pool) -> None:
            try:
                for result in self._dataset(number, pool, songs, holders):
                    if ended.is_set():
                        return
                    arrived.put(result)
                arrived.put(None)
            except BaseException as error:
                arrived.put(error)

        if len(self._pools) == 1:
            (pool,) = self._pools
            yield from self._dataset(0, pool, songs, holders)
            return
        threads = [
            threading.Thread(target=run, args=(number, pool), daemon=True)
            for number, pool in enumerate(self._pools)
        ]
        for thread in threads:
            thread.start()
        running = len(threads)
        try:
            while running:
                item = arrived.get()
                if isinstance(item, BaseException):
                    raise item
                if item is None:
                    running -= 1
                else:
                    yield item
        finally:
            ended.set()

    def _dataset(
        self, number: int, pool: Pool, songs: pa.Table, holders: Mapping[str, str]
    ) -> Iterator[Result]:
        table = songs if number == 0 else songs.take(pa.array(range(len(songs))[::-1], pa.int64()))
        addresses = pc.binary_join_element_wise(self._source, table["key"], "/")
        table = table.append_column("song", addresses)
        seen = [holders.get(key, "") for key in table["key"].to_pylist()] if holders else None
        table = table.append_column(
            "holder", pa.array(seen) if seen else pa.repeat(pa.scalar(""), len(table))
        )
        blocks, at = [], 0
        for size in block_sizes(table["bytes"].to_numpy(), pool.workers):
            blocks.append(table.slice(at, size).drop_columns("key").combine_chunks())
            at += size
        dataset = ray.data.from_arrow(blocks)
        dataset.context.enable_progress_bars = False
        dataset.context.print_on_execution_start = False
        settings = {**self._settings, "device": pool.device}
        settings["run"] = f"{self._summary.run}.{number}"
        results = dataset.map_batches(
            SeparateSongs,
            fn_constructor_kwargs=settings,
            batch_size=1,
            num_cpus=pool.cpus,
            num_gpus=pool.gpus or None,
            compute=ray.data.ActorPoolStrategy(
                min_size=1,
                max_size=pool.workers,
                initial_size=min(pool.workers, len(blocks)),
                max_tasks_in_flight_per_actor=2,  # with 1 the pool could not grow
            ),
        )
        for row in results.iter_rows():
            yield Result(**row)

    def _count(self, result: Result) -> None:
        summary, size = self._summary, result.bytes
        summary.done_bytes += size
        if result.status == "done":
            summary.done += 1
            summary.separated_bytes += size
            summary.audio_s += result.audio_s
            summary.busy_s += result.seconds
        elif result.status == "already":
            summary.already += 1
            summary.songs -= 1
        else:
            if result.status == "set aside":
                summary.set_aside += 1
            else:
                summary.failed += 1
            self._failures.add(result.song, result.status, result.error, result.worker)
        self._note("")

    def _note(self, note: str) -> None:
        self._summary.seconds = time.monotonic() - self._start
        self._summary.notes = [note] if note else []
        if self._watch is not None:
            self._watch(self._summary)


def _digest(key: str) -> int:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8])
