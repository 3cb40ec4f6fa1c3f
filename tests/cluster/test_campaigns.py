"""Small parts of the campaigns; the full ones are commands of their own."""

from __future__ import annotations

from campaigns import cluster_scale

ALBUM = cluster_scale.song_seconds(3000, seed=1)


def lost(order: str, workers: int = 20) -> float:
    return cluster_scale.simulate(ALBUM, workers, order, block_seconds=0.005, times_real_time=10.0)


def test_the_last_machine_waits_least_if_the_longest_song_is_first() -> None:
    first, others = lost("longest first"), [lost("random"), lost("shortest first")]
    assert first < min(others)


def test_a_thousand_workers_are_not_simulated_faster_than_the_longest_song() -> None:
    work = sum(length / 10 + 0.5 for length in ALBUM)
    longest = max(ALBUM) / 10 + 0.5
    part = lost("longest first", workers=1000)
    assert part >= 1 - work / (1000 * (longest + 30.0)) - 1e-9


def test_pages_of_a_listing_are_read_once_and_records_are_matched() -> None:
    _, _, pages, left = cluster_scale.listing(4000)
    assert (pages, left) == (5 + 3, 2000)


def test_the_memory_of_a_worker_does_not_grow_with_songs() -> None:
    (_, few), (_, many) = cluster_scale.memory([5, 30])
    assert many - few < 4
