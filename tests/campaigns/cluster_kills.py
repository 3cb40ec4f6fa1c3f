"""A library on a cluster whose parts die: python tests/campaigns/cluster_kills.py [PHASE ...]

Three nodes of Ray on this machine separate the songs of a bucket of a real S3 server, with a model
of size tiny and random weights. A phase is SONGS:KILLS:DRIVERS:FAULTS, for example 200:10:1:0. At
KILLS random moments a worker, a node or a driver is killed with SIGKILL; a node is replaced, a
driver is started again. DRIVERS run at the same time. A proxy answers the fraction FAULTS of all
requests with 503, slowly, or by dropping the connection. After each phase every song must have one
record, the stems must be those that `separate` writes, byte for byte, and nothing else may be in
the bucket. Writes results/NAME.md.
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
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
os.environ.update(
    RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="disabled", OMP_NUM_THREADS="1",
    RAY_BACKEND_LOG_LEVEL="fatal", OMP_WAIT_POLICY="passive",
    RAY_raylet_start_wait_time_s="300", RAY_health_check_timeout_ms="60000",
    RAY_health_check_initial_delay_ms="60000", RAY_agent_register_timeout_ms="600000",
)  # fmt: skip
sys.path += [str(ROOT / "tests")]

# ruff: noqa: E402
import numpy as np
import soundfile

from bsmamba2 import Separator
from bsmamba2_cluster.address import open_storage
from bsmamba2_cluster.recipe import FOLDER, KEY
from bsmamba2_cluster.record import RECORDS, WORK, Record
from bsmamba2_cluster.run_report import FAILURES, RUNS
from bsmamba2_cluster.tidy import remove_leftovers, require_conditional_puts
from support.faulty_proxy import FaultyProxy
from support.models import write_checkpoint
from support.s3_server import environment, free_ports, s3_server

RESULTS = Path(__file__).parent / "results"
BUCKET = "s3://music"
PHASES = ("200:30:1:0", "200:10:1:0.05", "200:0:2:0")
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


@dataclass(frozen=True)
class Phase:
    """What one library goes through."""

    songs: int
    kills: int
    drivers: int
    """That run at the same time."""
    faults: float
    """Fraction of requests."""

    @classmethod
    def parse(cls, text: str) -> Phase:
        songs, kills, drivers, faults = text.split(":")
        return cls(int(songs), int(kills), int(drivers), float(faults))


@dataclass
class Outcome:
    """What a phase found."""

    phase: Phase
    kills: Counter[str]
    drivers: int
    """Drivers that were started."""
    computed: int
    """Songs that drivers that were not killed report as separated by themselves."""
    faults: Counter[str]
    minutes: float = 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("phases", nargs="*", type=Phase.parse, metavar="PHASE")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--gap", type=float, default=10.0, help="Mean seconds between kills.")
    parser.add_argument("--name", default="cluster_kills", help="Name of the page.")
    parser.add_argument("--client", action="store_true", help="Drivers use ray:// addresses.")
    arguments = parser.parse_args()
    phases = arguments.phases or [Phase.parse(text) for text in PHASES]
    rows: list[str] = []
    for found in campaign(phases, arguments.seed, arguments.gap, arguments.client):
        rows.append(row(found))
        page = describe(rows, " ".join(sys.argv[1:]))
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{arguments.name}.md").write_text(page)
    print(page)


def row(found: Outcome) -> str:
    def counts(counter: Counter[str]) -> str:
        return ", ".join(f"{n} {kind}" for kind, n in sorted(counter.items())) or "none"

    faults = Counter({kind: n for kind, n in found.faults.items() if kind != "none"})
    requests = f" of {sum(found.faults.values()):,} requests" if faults else ""
    return (
        f"| {found.phase.songs} | {counts(found.kills)} | {found.phase.drivers} at a time, "
        f"{found.drivers} started | {counts(faults)}{requests} | {found.computed} | "
        f"{found.minutes:.1f} |"
    )


def describe(rows: list[str], options: str) -> str:
    lines = [
        "# A library on a cluster whose parts die",
        "",
        f"{NODES} nodes of Ray on one machine of {os.cpu_count()} cores, SeaweedFS as the S3 "
        "server, songs of 0.2 to 0.6 s, a model of size `tiny` with random weights. After each "
        "phase every song has exactly one record, its stems are byte for byte those of "
        "`bsmamba2 separate`, and the destination holds nothing else.",
        "",
        "| songs | killed with SIGKILL | drivers | faulty answers | songs that surviving drivers "
        "report as theirs | minutes |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
        "The machine was shared with other work, so the minutes say nothing about speed. "
        f"{datetime.date.today()}; `python tests/campaigns/cluster_kills.py {options}`.",
    ]
    return "\n".join(lines) + "\n"


def campaign(
    phases: Sequence[Phase], seed: int, gap_s: float, client: bool = False
) -> Iterator[Outcome]:
    """Yields what each phase found.

    Raises:
        AssertionError: a song is missing, twice, different, or something is left.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "server").mkdir()
        server = stack.enter_context(s3_server(folder / "server"))
        os.environ.update(server.environment, BSMAMBA2_CACHE=str(folder / "cache"))
        os.environ["BSMAMBA2_SPOOL"] = str(folder / "spool")
        model = str(write_checkpoint(folder / "voice.safetensors"))
        expected = prepare(folder, model, max(phase.songs for phase in phases))
        print(f"{time.ctime()}: prepared", flush=True)
        proxy = stack.enter_context(FaultyProxy(server.port, 0.0, seed))
        os.environ.update(environment(proxy.port))
        cluster, address = stack.enter_context(ray_cluster(client))
        for number, phase in enumerate(phases):
            print(f"{time.ctime()}: {phase}", flush=True)
            songs = list(expected)[: phase.songs]
            for song in songs:
                open_storage(BUCKET).copy(f"all/{song}", f"albums{number}/{song}")
            proxy.rate, proxy.faults = phase.faults, Counter()
            start = time.monotonic()
            run = _Campaign(cluster, address, model, number, random.Random(seed + number), folder)
            found = run.work(phase, gap_s)
            found.minutes, found.faults = (time.monotonic() - start) / 60, proxy.faults
            proxy.rate = 0.0
            stems = {key: sha for song in songs for key, sha in expected[song].items()}
            check(f"{BUCKET}/stems{number}", stems, len(songs))
            yield found


def prepare(folder: Path, model: str, songs: int) -> dict[str, dict[str, str]]:
    """Writes songs to the bucket; returns the SHA-256 of every stem that must result, by song."""
    noise, separator = np.random.default_rng(0), Separator(model, "cpu")
    storage, expected = open_storage(f"{BUCKET}/all"), {}
    for number in range(songs):
        samples = int(44100 * noise.uniform(0.2, 0.6))
        name, album = f"{number}.{('flac', 'wav')[number % 2]}", f"album {number % 7}"
        soundfile.write(folder / name, noise.uniform(-0.1, 0.1, (samples, 2)), 44100, "PCM_16")
        storage.upload(folder / name, f"{album}/{name}")
        stems = separator.separate_file(folder / name, folder / "reference").values()
        expected[f"{album}/{name}"] = {
            f"{album}/{stem.name}": hashlib.sha256(stem.read_bytes()).hexdigest() for stem in stems
        }
    return expected


@contextmanager
def ray_cluster(client: bool) -> Iterator[tuple[Any, str]]:
    """Starts a head without workers and nodes of one CPU each; ends all of their processes.

    Yields the cluster and the address for its drivers: of Ray's client, or of the cluster itself.
    """
    from ray.cluster_utils import Cluster

    memory = 128 << 20
    head: dict[str, Any] = {"num_cpus": 0, "include_dashboard": False}
    head["object_store_memory"] = memory
    (port,) = free_ports(1)
    if client:
        head["ray_client_server_port"] = port
    cluster = again(lambda: Cluster(initialize_head=True, head_node_args=head))
    try:
        for _ in range(NODES):
            add_node(cluster)
        yield cluster, f"ray://127.0.0.1:{port}" if client else cluster.address
    finally:
        cluster.shutdown()


def add_node(cluster: Any) -> None:
    """Adds a node, again if its processes were not ready in Ray's 30 s."""
    again(lambda: cluster.add_node(num_cpus=1, object_store_memory=128 << 20))


def again(start: Callable[[], Any]) -> Any:
    """Starts something of Ray, again if the machine is too busy for Ray's deadlines."""
    before = descendants(os.getpid())
    for _ in range(8):
        try:
            return start()
        except Exception as error:
            print(f"Ray did not start: {error}", flush=True)
            for process in descendants(os.getpid()).keys() - before.keys():
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
    raise AssertionError("Ray did not start")


def descendants(*of: int) -> dict[int, str]:
    """Returns the processes below others, and their command lines."""
    parents: dict[int, int] = {}
    commands: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            commands[int(folder.name)] = (folder / "cmdline").read_text(errors="replace")
            parents[int(folder.name)] = parent
    found: set[int] = set(of)
    for _ in range(10):
        found |= {process for process, parent in parents.items() if parent in found}
    return {process: commands.get(process, "") for process in found - set(of)}


class _Campaign:
    def __init__(
        self,
        cluster: Any,
        address: str,
        model: str,
        number: int,
        random_numbers: random.Random,
        logs: Path,
    ) -> None:
        self._cluster, self._model, self._random = cluster, model, random_numbers
        self._address = address
        self._where = f"{BUCKET}/albums{number}", f"{BUCKET}/stems{number}"
        self._started = 0
        self._logs = Path(tempfile.mkdtemp(dir=logs))
        self._log_of: dict[int, Path] = {}

    def work(self, phase: Phase, gap_s: float) -> Outcome:
        """Runs drivers until they finish, and kills what is there until it was enough."""
        killed: Counter[str] = Counter()
        computed = 0
        self._workers_of_each = max(1, NODES // phase.drivers)
        running = [self._driver() for _ in range(phase.drivers)]
        next_kill = time.monotonic() + 2 * gap_s
        while running:
            time.sleep(0.5)
            for driver in [one for one in running if one.poll() is not None]:
                output, _ = driver.communicate()
                errors = self._log(driver)
                running.remove(driver)
                if driver.returncode == 0:
                    print(f"{time.ctime()}: finished: {output}", flush=True)
                    lines = output.splitlines()  # Ray may print more
                    summary = json.loads(next(line for line in lines if line.startswith('{"run"')))
                    assert not summary["failed"] + summary["set_aside"], self._failures()
                    computed += summary["done"]
                else:
                    assert driver.returncode == -9, errors[-3000:]
                    running.append(self._driver())
            if running and sum(killed.values()) < phase.kills and time.monotonic() > next_kill:
                kind = self._kill(running)
                killed[kind] += bool(kind)
                next_kill = time.monotonic() + gap_s * self._random.uniform(0.4, 1.6)
                print(f"{time.ctime()}: {dict(killed)}", flush=True)
        return Outcome(phase, +killed, self._started, computed, Counter())

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
        return [n for n, command in descendants(*raylets).items() if "SeparateSongs" in command]

    def _driver(self) -> subprocess.Popen[str]:
        self._started += 1
        command = [sys.executable, "-c", DRIVER, *self._where, self._model, self._address]
        command += [str(CLAIM_S), str(self._workers_of_each)]
        log = self._logs / f"{self._started}"
        with log.open("wb") as errors:
            driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        self._log_of[driver.pid] = log
        return driver

    def _failures(self) -> list[bytes | None]:
        destination = open_storage(self._where[1])
        return [destination.read(e.key) for page in destination.pages(FAILURES) for e in page]

    def _log(self, driver: subprocess.Popen[str]) -> str:
        return self._log_of[driver.pid].read_text(errors="replace")


def check(address: str, expected: dict[str, str], songs: int) -> None:
    """Requires the destination to have every stem, every record, and nothing else."""
    destination = open_storage(address)
    remove_leftovers(destination, require_conditional_puts(destination))
    keys = {entry.key for page in destination.pages() for entry in page}
    stems = {key for key in keys if not key.startswith(f"{FOLDER}/")}
    assert stems == set(expected), stems ^ set(expected)
    records = [Record.parse(destination.read(k) or b"") for k in keys if k.startswith(RECORDS)]
    assert len(records) == len({record.song for record in records}) == songs
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
