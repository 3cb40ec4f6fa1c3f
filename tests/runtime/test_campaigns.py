"""A seeded fraction of each campaign; the full campaigns are separate commands."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from campaigns import fuzz, hostile, kills

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="they read /proc and send signals")


def test_a_batch_that_is_killed_and_resumed_ends_like_an_uninterrupted_one(tmp_path: Path) -> None:
    moments = list(kills.campaign(tmp_path, kills=2, seed=1, songs=2))
    assert len([moment for moment in moments if moment.startswith("killed")]) == 2


def test_mutated_files_are_processed_or_refused_in_one_sentence() -> None:
    counts, failures, most = fuzz.campaign(120, seed=1)
    assert failures == []
    assert sum(counts.values()) == 120
    assert most < fuzz.BOUND_MIB


def test_hostile_models_are_refused_in_one_sentence_without_much_memory_or_time() -> None:
    counts, failures, most_mib = hostile.campaign(84, seed=1)
    assert failures == []
    assert sum(counts.values()) == 84
    assert most_mib < hostile.BOUND_MIB
