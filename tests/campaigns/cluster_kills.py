"""A library on a cluster whose parts die: python tests/campaigns/cluster_kills.py [--kills 30]

Three nodes of Ray on this machine separate the songs of a bucket of a real S3 server, with a model
of size tiny and random weights. At random moments a worker, a node or the driver is killed with
SIGKILL; a node is replaced, the driver is started again. With --faults, every request passes a
proxy that answers 503, waits, or drops the connection. With --drivers 2, two drivers share the
bucket. In the end every song must have one record, the stems must be those that `separate` writes,
byte for byte, and nothing else may be in the bucket. Writes results/NAME.md.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
os.environ.update(
    RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="disabled", OMP_NUM_THREADS="1",
    RAY_BACKEND_LOG_LEVEL="fatal", OMP_WAIT_POLICY="passive",
)  # fmt: skip
sys.path += [str(ROOT / "tests")]

# ruff: noqa: E402
import numpy as np
import soundfile

from bsmamba2 import Separator
from bsmamba2_cluster.recipe import FOLDER, KEY
from bsmamba2_cluster.record import RECORDS, WORK, Record
from bsmamba2_cluster.run_report import FAILURES, RUNS
from bsmamba2_cluster.storage import open_storage
from bsmamba2_cluster.tidy import remove_leftovers, require_conditional_puts
from support.faulty_proxy import FaultyProxy
from support.models import write_checkpoint
from support.s3_server import environment, s3_server

RESULTS = Path(__file__).parent / "results"
SOURCE, DESTINATION = "s3://music/albums", "s3://music/stems"
NODES = 3
CLAIM_S = 8.0
DRIVER = """
import json, logging, sys
from bsmamba2_cluster import separate_library
logging.getLogger("ray.data").setLevel("ERROR")
source, destination, model, address, claim_s, workers = sys.argv[1:7]
summary = separate_library(
    source, destination, model, on=address, claim_s=float(claim_s), workers=int(workers),
    cpus_per_worker=1, device="cpu",
)
print(json.dumps(summary.to_json()))
"""


@dataclass
class Outcome:
    """What a campaign found."""

    songs: int
    kills: Counter[str]
    drivers: int
    """Drivers that were started."""
    seconds: float
    computed: int
    """Songs that the drivers report as separated by themselves."""
    faults: Counter[str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--songs", type=int, default=200)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--drivers", type=int, default=1, help="That run at the same time.")
    parser.add_argument("--faults", type=float, default=0.0, help="Fraction of faulty requests.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", default="cluster_kills", help="Name of the page.")
    arguments = parser.parse_args()
    found = campaign(
        arguments.songs, arguments.kills, arguments.drivers, arguments.faults, arguments.seed
    )
    page = describe(found, " ".join(sys.argv[1:]))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{arguments.name}.md").write_text(page)
    print(page)


def describe(found: Outcome, options: str) -> str:
    kills = ", ".join(f"{count} of a {kind}" for kind, count in sorted(found.kills.items()))
    faults = ", ".join(f"{n} {kind}" for kind, n in sorted(found.faults.items()) if kind != "none")
    lines = [
        "# A library on a cluster whose parts die",
        "",
        f"{found.songs} songs on {NODES} nodes of Ray on one machine, with SeaweedFS as the S3 "
        "server. Every song has exactly one record; its stems are byte for byte those of "
        "`bsmamba2 separate`; the bucket holds nothing else.",
        "",
        f"- SIGKILLs: {kills or 'none'}",
        f"- drivers started: {found.drivers}; they report {found.computed} songs as separated by "
        "themselves (those of killed drivers are not in this count)",
        f"- faulty answers of {sum(found.faults.values()):,}: {faults or 'no proxy'}",
        f"- {found.seconds / 60:.1f} minutes",
        "",
        f"{datetime.date.today()}; `python tests/campaigns/cluster_kills.py {options}`",
    ]
    return "\n".join(lines) + "\n"


def campaign(songs: int, kills: int, drivers: int, faults: float, seed: int) -> Outcome:
    """Runs a campaign.

    Raises:
        AssertionError: a song is missing, twice, different, or something is left.
    """
    start = time.monotonic()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "server").mkdir()
        server = stack.enter_context(s3_server(folder / "server"))
        os.environ.update(server.environment, BSMAMBA2_CACHE=str(folder / "cache"))
        os.environ["BSMAMBA2_SPOOL"] = str(folder / "spool")
        model = str(write_checkpoint(folder / "voice.safetensors"))
        expected = prepare(folder, model, songs)
        print(f"prepared after {time.monotonic() - start:.0f} s", flush=True)
        counts: Counter[str] = Counter()
        if faults:
            proxy = stack.enter_context(FaultyProxy(server.port, faults, seed))
            os.environ.update(environment(proxy.port))
            counts = proxy.faults
        cluster = stack.enter_context(ray_cluster())
        run = _Campaign(cluster, model, random.Random(seed))
        begin = time.monotonic()
        found = run.work(kills, drivers)
        found.seconds, found.songs = time.monotonic() - begin, songs
        os.environ.update(server.environment)
        found.faults = counts
        check(expected)
    return found


def prepare(folder: Path, model: str, songs: int) -> dict[str, str]:
    """Writes songs to the bucket; returns the SHA-256 of every stem that must result."""
    noise, expected = np.random.default_rng(0), {}
    source, separator = open_storage(SOURCE), Separator(model, "cpu")
    for number in range(songs):
        samples = int(44100 * noise.uniform(0.3, 1.5))
        suffix = ("flac", "wav")[number % 2]
        path = folder / f"{number}.{suffix}"
        soundfile.write(path, noise.uniform(-0.1, 0.1, (samples, 2)), 44100, "PCM_16")
        album = f"album {number % 7}"
        source.upload(path, f"{album}/{path.name}")
        for file in separator.separate_file(path, folder / "reference").values():
            expected[f"{album}/{file.name}"] = hashlib.sha256(file.read_bytes()).hexdigest()
            file.unlink()
        path.unlink()
    return expected


@contextmanager
def ray_cluster() -> Iterator[Any]:
    """Starts a head without workers and nodes of one CPU each; ends all of their processes."""
    from ray.cluster_utils import Cluster

    memory = 128 << 20
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": memory}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(NODES):
            add_node(cluster)
        yield cluster
    finally:
        cluster.shutdown()


def add_node(cluster: Any) -> None:
    """Adds a node, again if its processes were not ready in Ray's 30 s."""
    for _ in range(5):
        try:
            cluster.add_node(num_cpus=1, object_store_memory=128 << 20)
            return
        except Exception as error:
            print(f"a node did not start: {error}", flush=True)
    raise AssertionError("no node started")


class _Campaign:
    def __init__(self, cluster: Any, model: str, random_numbers: random.Random) -> None:
        self._cluster, self._model, self._random = cluster, model, random_numbers
        self._started = 0

    def work(self, kills: int, drivers: int) -> Outcome:
        """Runs drivers until they finish, and kills what is there until it was enough."""
        killed: Counter[str] = Counter()
        computed = 0
        running = [self._driver() for _ in range(drivers)]
        next_kill = time.monotonic() + 20
        while running:
            time.sleep(0.5)
            for driver in [one for one in running if one.poll() is not None]:
                output, errors = driver.communicate()
                running.remove(driver)
                if driver.returncode == 0:
                    summary = json.loads(output.splitlines()[-1])
                    print(f"finished: {summary}", flush=True)
                    assert not summary["failed"] + summary["set_aside"], errors[-3000:]
                    computed += summary["done"]
                else:
                    assert driver.returncode == -9, errors[-3000:]
                    running.append(self._driver())
            if running and sum(killed.values()) < kills and time.monotonic() > next_kill:
                kind = self._kill(running)
                killed[kind] += bool(kind)
                next_kill = time.monotonic() + self._random.uniform(4, 16)
                print(f"{time.monotonic():.0f}: {dict(killed)}", flush=True)
        return Outcome(0, +killed, self._started, 0.0, computed, Counter())

    def _kill(self, running: list[subprocess.Popen[str]]) -> str:
        """Kills something; returns what, or an empty text if it was not there."""
        kind = self._random.choices(("worker", "node", "driver"), (6, 2, 2))[0]
        if kind == "driver":
            self._random.choice(running).kill()
        elif kind == "node":
            node = self._random.choice(list(self._cluster.worker_nodes))
            self._cluster.remove_node(node, allow_graceful=False)
            add_node(self._cluster)
        else:
            workers = self._workers()
            if not workers:
                return ""
            os.kill(self._random.choice(workers), signal.SIGKILL)
        return kind

    def _workers(self) -> list[int]:
        """The processes of this cluster's nodes that separate songs."""
        raylets = [
            known[1].pid
            for node in self._cluster.worker_nodes
            for known in node.live_processes()
            if known[0] == "raylet"
        ]
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
                command = (process / "cmdline").read_bytes()
            except (OSError, ValueError):
                continue
            if parent in raylets and b"SeparateSongs" in command:
                found.append(int(process.name))
        return found

    def _driver(self) -> subprocess.Popen[str]:
        self._started += 1
        address = self._cluster.address
        command = [sys.executable, "-c", DRIVER, SOURCE, DESTINATION, self._model, address]
        command += [str(CLAIM_S), str(NODES)]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)


def check(expected: dict[str, str]) -> None:
    """Requires the destination to have every stem, every record, and nothing else."""
    destination = open_storage(DESTINATION)
    remove_leftovers(destination, require_conditional_puts(destination))
    keys = {entry.key for page in destination.pages() for entry in page}
    stems = {key for key in keys if not key.startswith(f"{FOLDER}/")}
    assert stems == set(expected), stems ^ set(expected)
    records = [Record.parse(destination.read(k) or b"") for k in keys if k.startswith(RECORDS)]
    assert len(records) == len({record.song for record in records}) == len(expected) // 2
    listed = {stem.key: stem.sha256 for record in records for stem in record.outputs.values()}
    assert listed == expected
    for key, digest in expected.items():
        assert hashlib.sha256(destination.read(key, 1 << 30) or b"").hexdigest() == digest, key
    rest = keys - stems - {KEY}
    known = (RECORDS, RUNS, FAILURES, f"{FOLDER}/models/")
    assert [key for key in rest if not key.startswith(known)] == []
    assert [key for key in keys if key.startswith(WORK)] == []


if __name__ == "__main__":
    main()
