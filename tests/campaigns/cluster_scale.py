"""How a library scales: python tests/campaigns/cluster_scale.py [PART ...]

`listing` lists a million songs and half a million records from a server that computes S3's pages of
1,000 keys. `memory` separates more and more songs in one worker. `throughput` separates songs with
1, 2, … workers, up to the number of cores. `simulation` plays a million songs on up to 1,000
workers, with the time that Ray takes per block as measured here first. Each part writes
results/cluster_PART.md.
"""

from __future__ import annotations

import argparse
import datetime
import heapq
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

ROOT = Path(__file__).parents[2]
sys.path += [str(ROOT / "tests"), str(ROOT)]

# ruff: noqa: E402
import numpy as np
import soundfile

from benchmarks.machine import Watch, background_load, cpu
from bsmamba2_cluster.address import open_storage
from bsmamba2_cluster.recipe import Recipe
from bsmamba2_cluster.record import RECORDS, record_key, song_id, version_id
from bsmamba2_cluster.song_list import block_sizes, list_songs
from support.listing_server import ListingServer
from support.models import gain_model, write_checkpoint
from support.s3_server import environment

RESULTS = Path(__file__).parent / "results"
RECIPE = Recipe("s3://music/albums", "model", "0" * 64, {"template": "{name}_{stem}.{ext}"})
MIB = 1 << 20
PARTS = ("listing", "memory", "throughput", "simulation")
ORDERS = ("longest first", "random", "shortest first")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART")
    parser.add_argument("--keys", type=int, default=1_000_000, help="For the listing.")
    parser.add_argument("--songs", type=int, default=10_000, help="For the memory, at most.")
    parser.add_argument("--separated", type=int, default=60, help="Songs for the throughput.")
    parser.add_argument("--block-ms", type=float, help="For the simulation, instead of measuring.")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"PART must be one of {', '.join(PARTS)}; got {', '.join(unknown)}")
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", OMP_NUM_THREADS="1", RAY_AUTH_MODE="disabled")
    RESULTS.mkdir(exist_ok=True)
    options = " ".join(sys.argv[1:])
    for part in arguments.parts or PARTS:
        watch = Watch()
        page = {
            "listing": lambda: listing_page(arguments.keys),
            "memory": lambda: memory_page(arguments.songs),
            "throughput": lambda: throughput_page(arguments.separated),
            "simulation": lambda: simulation_page(
                arguments.block_ms / 1000 if arguments.block_ms else measure_block_seconds()
            ),
        }[part]()
        page += (
            f"\n{cpu()}, {os.cpu_count()} cores; {background_load(watch.background_cores())}; "
            f"{datetime.date.today()}; `python tests/campaigns/cluster_scale.py {options}`.\n"
        )
        (RESULTS / f"cluster_{part}.md").write_text(page)
        print(page, flush=True)


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

    with ListingServer(found) as server, patch.dict(os.environ, environment(server.port)):
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
        "# Listing a million songs\n\n"
        f"{keys:,} songs and {keys // 2:,} records, in {pages:,} pages of 1,000 keys: "
        f"{seconds:.0f} s, {mib:.0f} MiB more at the peak; {left:,} songs were left. The server "
        "that computes the pages ran in the same process, so both figures include it; a real "
        "store adds its answer time, about 0.1 s per page, "
        f"{pages * 0.1 / 60:.0f} minutes.\n"
    )


MEMORY = """
import os, sys
from bsmamba2_cluster.separate_songs import SeparateSongs
from bsmamba2_cluster.address import open_storage
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


def memory(counts: Sequence[int]) -> list[tuple[int, float]]:
    """Returns the resident MiB of one worker after more and more songs."""
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
    counts = [count for count in (10, 100, 1000, 10_000) if count <= most]
    rows = "\n".join(f"| {count:,} | {mib:.1f} |" for count, mib in memory(counts))
    return (
        "# Memory of a worker\n\nResident memory after so many songs of 0.1 s, each claimed, "
        "separated with a model that only scales, published and recorded in a folder.\n\n"
        f"| songs | MiB |\n|---|---|\n{rows}\n"
    )


THROUGHPUT = """
import json, sys, time
from bsmamba2_cluster import separate_library
source, destination, model, workers = sys.argv[1:]
seen = []
def watch(summary):
    if not summary.notes:
        seen.append((time.monotonic(), summary.audio_s))
summary = separate_library(
    source, destination, model, device="cpu", workers=int(workers), cpus_per_worker=1, watch=watch
)
assert summary.done == summary.songs, summary
steady = seen[2 * int(workers):]  # without the start of the workers
(start, audio), (end, all_audio) = steady[0], steady[-1]
print(json.dumps([(all_audio - audio) / (end - start), summary.busy_s / summary.done]))
"""


def throughput(songs: int) -> list[tuple[int, float, float]]:
    """Returns workers, seconds of audio per second, and seconds per song in a worker."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, noise = write_checkpoint(folder / "voice.safetensors"), np.random.default_rng(0)
        (folder / "songs").mkdir()
        for number in range(songs):
            samples = noise.uniform(-0.1, 0.1, (3 * 44100, 2))
            soundfile.write(folder / "songs" / f"{number}.flac", samples, 44100, "PCM_16")
        for workers in range(1, (os.cpu_count() or 1) + 1):
            command = [sys.executable, "-c", THROUGHPUT, str(folder / "songs")]
            command += [str(folder / f"stems{workers}"), str(model), str(workers)]
            variables = os.environ | {"BSMAMBA2_CACHE": name, "BSMAMBA2_SPOOL": name}
            ran = subprocess.run(
                command, env=variables, stdout=subprocess.PIPE, text=True, check=True
            )
            rows.append((workers, *json.loads(ran.stdout.splitlines()[-1])))
    return rows


def throughput_page(songs: int) -> str:
    rows = "\n".join(
        f"| {workers} | {rate:.1f} | {seconds:.2f} |"
        for workers, rate, seconds in throughput(songs)
    )
    return (
        f"# Throughput against workers\n\n{songs} songs of 3 s in a local folder, a model of size "
        "`tiny` with random weights, one core per worker, without the start of the workers. The "
        "background load below took the rest of the cores, so this shows only how the work is "
        "shared.\n\n| workers | seconds of audio per second | seconds per song in a worker |\n"
        f"|---|---|---|\n{rows}\n"
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
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    seconds = float(ran.stdout.split()[-1])
    if seconds <= 0:
        raise SystemExit("the machine is too busy to measure a block: give --block-ms")
    return seconds


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
    for size in block_sizes((1000 * np.array(work)).astype(np.int64), workers):
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
        "# A million songs, simulated: time of the workers that is lost\n\n"
        f"Ray Data takes {block_seconds * 1000:.1f} ms per block, as measured on this machine. "
        "A worker starts in 30 s and needs 0.5 s per song for storage, which does not count as "
        "lost. One song of 1,000 takes 1 to 3 hours, the others about 3.7 minutes.\n\n"
        f"| songs | hours of audio | workers | x real time | {' | '.join(ORDERS)} |\n"
        f"|---|---|---|---|---|---|---|\n{table}\n"
    )


if __name__ == "__main__":
    main()
