"""How many workers run on what."""

from __future__ import annotations

from typing import Any

import pytest

from bsmamba2 import DeviceError
from bsmamba2_cluster.pools import Pool, choose_pools, gpus_per_worker

CPUS = [{"CPU": 8.0}, {"CPU": 4.0}]
CARDS = [{"CPU": 16.0, "GPU": 4.0}, {"CPU": 64.0}]


@pytest.mark.parametrize(
    ("nodes", "settings", "pools"),
    [
        (CPUS, {}, [Pool("cpu", 3, 4.0)]),
        (CPUS, {"cpus_per_worker": 2}, [Pool("cpu", 6, 2)]),
        (CPUS, {"workers": 50}, [Pool("cpu", 50, 4.0)]),
        (CARDS, {}, [Pool("cuda", 4, 1.0, 1.0)]),
        (CARDS, {"gpus_per_worker": 0.5}, [Pool("cuda", 8, 1.0, 0.5)]),
        (CARDS, {"device": "tensorrt"}, [Pool("tensorrt", 4, 1.0, 1.0)]),
        (CARDS, {"device": "cpu", "cpus_per_worker": 16}, [Pool("cpu", 5, 16)]),
        (CARDS, {"cpu_workers": 8}, [Pool("cuda", 4, 1.0, 1.0), Pool("cpu", 8, 1.0)]),
        (CPUS, {"device": "cuda", "workers": 2}, [Pool("cuda", 2, 1.0, 1.0)]),
    ],
)
def test_pools_fit_the_machines(
    nodes: list[dict[str, float]], settings: dict[str, Any], pools: list[Pool]
) -> None:
    assert choose_pools(nodes, **settings) == pools


@pytest.mark.parametrize(
    ("nodes", "settings", "message"),
    [
        (CPUS, {"device": "cuda"}, "needs machines with a card"),
        ([{"CPU": 0.0}], {}, "no machine with a CPU"),
        (CPUS, {"workers": 0}, "workers must be 1 to"),
        (CPUS, {"cpus_per_worker": 0.5}, "cpus_per_worker must be 1 or more"),
        (CARDS, {"gpus_per_worker": 2}, "gpus_per_worker must be above 0 and at most 1"),
        (CARDS, {"cpu_workers": -1}, "cpu_workers must be 0 to"),
        (CPUS, {"gpus_per_worker": 0.5}, "gpus_per_worker must be None on a CPU"),
    ],
)
def test_what_cannot_run_is_refused(
    nodes: list[dict[str, float]], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(DeviceError, match=message):
        choose_pools(nodes, **settings)


def test_workers_per_card_follow_from_its_memory() -> None:
    assert gpus_per_worker(24, 5) == 0.25
    assert gpus_per_worker(24, 20) == 1.0
    with pytest.raises(DeviceError, match="worker_gib"):
        gpus_per_worker(24, 30)
