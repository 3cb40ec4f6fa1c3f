"""How many workers run on what: pools of equal workers, chosen from a cluster's resources."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bsmamba2 import DeviceError
from bsmamba2.errors import require

MOST_WORKERS = 10_000


@dataclass(frozen=True)
class Pool:
    """Equal workers, each an actor of Ray."""

    device: str
    workers: int
    cpus: float
    """CPUs that Ray reserves per worker; on a CPU, the cores that it uses."""
    gpus: float = 0.0
    """Part of a card per worker: 0.5 puts two workers on each."""


def choose_pools(
    nodes: Iterable[Mapping[str, float]],
    device: str = "auto",
    workers: int | None = None,
    cpus_per_worker: float | None = None,
    gpus_per_worker: float | None = None,
    cpu_workers: int = 0,
) -> list[Pool]:
    """Chooses the pools of a run.

    Args:
        nodes: the resources of each machine, as Ray states them.
        device: ``auto``, ``cpu``, ``cuda`` or ``tensorrt``. ``auto`` uses the cards if there are
            any, otherwise the CPUs.
        workers: of the main pool. Default: as many as the machines have room for. More than that
            is allowed, for clusters that grow.
        cpus_per_worker: Default: one CPU worker per machine; 1 next to a card.
        gpus_per_worker: part of a card per worker. Default: 1.
        cpu_workers: of a second pool on the CPUs, which works on the same songs as the cards.

    Raises:
        DeviceError: the cluster has no such device, or an argument is out of range.
    """
    machines = [dict(node) for node in nodes if node.get("CPU", 0) >= 1]
    cards = sum(node.get("GPU", 0) for node in machines)
    kind = device.partition(":")[0]
    if kind == "auto":
        kind = "cuda" if cards else "cpu"
    allowed = f"1 to {MOST_WORKERS}"
    require(
        workers is None or 1 <= workers <= MOST_WORKERS, "workers", allowed, workers, DeviceError
    )
    fits = cpus_per_worker is None or cpus_per_worker >= 1
    require(fits, "cpus_per_worker", "1 or more", cpus_per_worker, DeviceError)
    part = gpus_per_worker is None or 0 < gpus_per_worker <= 1
    require(part, "gpus_per_worker", "above 0 and at most 1", gpus_per_worker, DeviceError)
    require(
        0 <= cpu_workers <= MOST_WORKERS, "cpu_workers", f"0 to {MOST_WORKERS}", cpu_workers,
        DeviceError,
    )  # fmt: skip
    if not machines:
        raise DeviceError("the cluster has no machine with a CPU: wait until one has joined it")
    if kind == "cpu":
        none = gpus_per_worker is None
        require(none, "gpus_per_worker", "None on a CPU", gpus_per_worker, DeviceError)
        cpus = cpus_per_worker or min(node["CPU"] for node in machines)
        room = sum(int(node["CPU"] // cpus) for node in machines)
        return [Pool("cpu", workers or max(1, room), cpus)]
    if not cards and workers is None:
        raise DeviceError(
            f"device='{kind}' needs machines with a card, and the cluster has none: state workers, "
            "if they will join it, or use device='cpu'"
        )
    share = gpus_per_worker or 1.0
    room = sum(int(node.get("GPU", 0) // share) for node in machines)
    pools = [Pool(kind, workers or max(1, room), cpus_per_worker or 1.0, share)]
    if cpu_workers:
        pools.append(Pool("cpu", cpu_workers, cpus_per_worker or 1.0))
    return pools


def gpus_per_worker(card_gib: float, worker_gib: float, reserved_gib: float = 1.0) -> float:
    """Returns the part of a card that a worker needs by its memory.

    Args:
        card_gib: memory of a card.
        worker_gib: memory of one worker, as ``nvidia-smi`` shows it while it separates.
        reserved_gib: kept free on the card.

    Raises:
        DeviceError: not even one worker fits.
    """
    fitting = int((card_gib - reserved_gib) // worker_gib) if worker_gib > 0 else 0
    if fitting < 1:
        raise DeviceError(
            f"worker_gib must be above 0 and at most {card_gib - reserved_gib:g} for a card of "
            f"{card_gib:g} GiB; got {worker_gib:g}: choose a smaller model or card with more memory"
        )
    return 1.0 / fitting
