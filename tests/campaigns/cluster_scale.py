"""How a library scales: python tests/campaigns/cluster_scale.py [listing memory simulation]

`listing` lists a million songs and half a million records from a server that computes S3's pages of
1,000 keys. `memory` separates more and more songs in one worker. `simulation` plays a million songs
on up to 1,000 workers, with the time that Ray takes per block as measured here first. Writes
results/cluster_scale.md.
"""

from __future__ import annotations

import argparse
import datetime
import heapq
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path += [str(ROOT / "tests")]
os.environ.update(RAY_USAGE_STATS_ENABLED="0", OMP_NUM_THREADS="1", RAY_AUTH_MODE="disabled")

# ruff: noqa: E402
import numpy as np
import soundfile

from bsmamba2_cluster.recipe import Recipe
from bsmamba2_cluster.record import RECORDS, record_key, song_id, version_id
from bsmamba2_cluster.song_list import block_sizes, list_songs
from bsmamba2_cluster.storage import open_storage
from support.listing_server import ListingServer
from support.models import gain_model
from support.s3_server import environment

RESULTS = Path(__file__).parent / "results"
RECIPE = Recipe("s3://music/albums", "model", "0" * 64, {"template": "{name}_{stem}.{ext}"})
MIB = 1 << 20
ORDERS = ("longest first", "random", "shortest first")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=["listing", "memory", "simulation"])
    parser.add_argument("--keys", type=int, default=1_000_000, help="For the listing.")
    parser.add_argument("--songs", type=int, default=10_000, help="For the memory, at most.")
    arguments = parser.parse_args()
    sections = []
    if "listing" in arguments.parts:
        sections.append(listing_page(arguments.keys))
    if "memory" in arguments.parts:
        sections.append(memory_page(arguments.songs))
    if "simulation" in arguments.parts:
        sections.append(simulation_page(measure_block_seconds()))
    options = " ".join(sys.argv[1:])
    page = "# How a library scales\n\n" + "\n".join(sections)
    page += f"\n{datetime.date.today()}; `python tests/campaigns/cluster_scale.py {options}`\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "cluster_scale.md").write_text(page)
    print(page)


def song(number: int) -> tuple[str, int, str]:
    """Returns key, size and ETag of a song of the invented library."""
    return (
        f"album {number // 12:06}/{number % 12:02} song.flac",
        1000 + number % 977,
        f"{number:032x}",
    )


def listing(keys: int) -> tuple[float, float, int, int]:
    """Lists songs and records; returns seconds, MiB more at the peak, pages and songs left."""

    def found(prefix: str, start: int, end: int) -> Sequence[tuple[str, int, str]]:
        numbers = range(start, min(end, keys))
        if RECORDS not in prefix:
            return [(f"albums/{key}", size, etag) for key, size, etag in map(song, numbers)]
        return [
            (f"stems/{record_key(song_id(key), version_id(size, etag, RECIPE))}", 600, etag)
            for key, size, etag in map(song, range(start, min(end, keys // 2)))
        ]

    with ListingServer(found) as server:
        os.environ.update(environment(server.port))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.perf_counter()
        songs = list_songs(
            open_storage("s3://music/albums"),
            open_storage("s3://music/stems"),
            RECIPE,
            lambda key, error: None,
        )
        seconds = time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert songs.done == keys // 2
        return seconds, (after - before) / 1024, server.pages, len(songs.songs)


def listing_page(keys: int) -> str:
    seconds, mib, pages, left = listing(keys)
    return (
        "## Listing\n\n"
        f"{keys:,} songs and {keys // 2:,} records, in {pages:,} pages of 1,000 keys: "
        f"{seconds:.0f} s, {mib:.0f} MiB more at the peak; {left:,} songs were left. The server "
        "that computes the pages ran in the same process, so both figures include it; a real "
        "store adds its answer time, about 0.1 s per page, "
        f"{pages * 0.1 / 60:.0f} minutes.\n"
    )


MEMORY = """
import os, sys
from bsmamba2_cluster.separate_songs import SeparateSongs
from bsmamba2_cluster.storage import open_storage
source, destination, model, *counts = sys.argv[1:]
worker = SeparateSongs(source, destination, model, "cpu", run="run")
done = 0
for count in map(int, counts):
    while done < count:
        rows = worker({"song": [f"{source}/{done}.wav"]})
        assert rows["status"] == ["done"], rows
        done += 1
    pages = int(open("/proc/self/statm").read().split()[1])
    print(count, pages * os.sysconf("SC_PAGE_SIZE") // 1024, flush=True)
"""


def memory(most: int) -> list[tuple[int, float]]:
    """Returns the resident MiB of one worker after more and more songs."""
    counts = [count for count in (10, 100, 1000, 10_000) if count <= most]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "gain.onnx").write_bytes(gain_model())
        (folder / "songs").mkdir()
        noise = np.random.default_rng(0)
        soundfile.write(folder / "song.wav", noise.uniform(-0.1, 0.1, (4410, 2)), 44100, "PCM_16")
        for number in range(counts[-1]):
            (folder / "songs" / f"{number}.wav").hardlink_to(folder / "song.wav")
        command = [sys.executable, "-c", MEMORY, str(folder / "songs"), str(folder / "stems")]
        command += [str(folder / "gain.onnx"), *map(str, counts)]
        ran = subprocess.run(
            command,
            env=os.environ | {"BSMAMBA2_CACHE": str(folder), "BSMAMBA2_SPOOL": name},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    rows = [line.split() for line in ran.stdout.splitlines()]
    return [(int(count), int(kib) / 1024) for count, kib in rows]


def memory_page(most: int) -> str:
    rows = "\n".join(f"| {count:,} | {mib:.1f} |" for count, mib in memory(most))
    return (
        "## Memory of a worker\n\nResident memory after so many songs of 0.1 s, each claimed, "
        "separated with a model that only scales, published and recorded in a folder.\n\n"
        f"| songs | MiB |\n|---|---|\n{rows}\n"
    )


BLOCKS = """
import sys, time
import pyarrow as pa
from bsmamba2_cluster import ray_run
ray_run.connect(None)
import ray.data

class Nothing:
    def __call__(self, batch):
        return batch

def seconds(blocks):
    tables = [pa.table({"song": [f"{n}"]}) for n in range(blocks)]
    start = time.perf_counter()
    dataset = ray.data.from_arrow(tables)
    dataset.context.enable_progress_bars = False
    pool = ray.data.ActorPoolStrategy(size=1, max_tasks_in_flight_per_actor=2)
    for row in dataset.map_batches(Nothing, batch_size=1, num_cpus=1, compute=pool).iter_rows():
        pass
    return time.perf_counter() - start

seconds(10)
few, many = seconds(20), seconds(420)
print((many - few) / 400)
"""


def measure_block_seconds() -> float:
    """Returns the seconds that Ray Data takes per block of work, on this machine now."""
    command = [sys.executable, "-c", BLOCKS]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(ran.stdout.split()[-1])


def song_seconds(songs: int, seed: int = 0) -> list[float]:
    """Returns lengths of songs: most of some minutes, a few of hours."""
    noise = np.random.default_rng(seed)
    usual = noise.lognormal(np.log(220), 0.4, songs)
    long = noise.uniform(3600, 3 * 3600, songs)
    return list(np.where(noise.random(songs) < 0.001, long, usual))


def simulate(
    seconds: Sequence[float],
    workers: int,
    order: str,
    block_seconds: float,
    times_real_time: float,
    fixed_seconds: float = 0.5,
    start_seconds: float = 30.0,
) -> float:
    """Returns the part of the workers' time that is lost until the last one has finished.

    Args:
        seconds: lengths of the songs.
        workers: their number.
        order: one of :data:`ORDERS`.
        block_seconds: the driver's time per block; it gives out one block after the other.
        times_real_time: of one worker.
        fixed_seconds: per song, for storage.
        start_seconds: until a worker has loaded its model.
    """
    work = [length / times_real_time + fixed_seconds for length in seconds]
    if order == "random":
        random.Random(0).shuffle(work)
    else:
        work.sort(reverse=order == "longest first")
    free = [start_seconds] * workers
    driver = end = 0.0
    at = 0
    for size in block_sizes(len(work), workers):
        ready = heapq.heappop(free)
        driver = max(driver + block_seconds, ready)
        finished = driver + sum(work[at : at + size])
        at += size
        end = max(end, finished)
        heapq.heappush(free, finished)
    return 1 - sum(work) / (end * workers)


def simulation_page(block_seconds: float) -> str:
    rows = []
    for songs, workers in ((200, 4), (10_000, 40), (100_000, 200), (1_000_000, 1000)):
        lengths = song_seconds(songs)
        for speed in (10.0, 100.0):
            lost = [simulate(lengths, workers, order, block_seconds, speed) for order in ORDERS]
            cells = " | ".join(f"{part:.1%}" for part in lost)
            hours = sum(lengths) / 3600
            rows.append(f"| {songs:,} | {hours:,.0f} | {workers:,} | {speed:g} | {cells} |")
    table = "\n".join(rows)
    return (
        "## Simulation: time of the workers that is lost\n\n"
        f"Ray Data took {block_seconds * 1000:.1f} ms per block on this machine, during this run. "
        "A worker starts in 30 s and needs 0.5 s per song for storage, which does not count as "
        "lost. One song of 1,000 takes 1 to 3 hours, the others about 3.7 minutes.\n\n"
        f"| songs | hours of audio | workers | x real time | {' | '.join(ORDERS)} |\n"
        f"|---|---|---|---|---|---|---|\n{table}\n"
    )


if __name__ == "__main__":
    main()
