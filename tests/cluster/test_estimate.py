"""Hours and cost from a measured rate."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from bsmamba2 import AudioError
from bsmamba2_cluster.address import open_storage
from bsmamba2_cluster.estimate import estimate, sampled_seconds_per_byte
from bsmamba2_cluster.run_report import MeasuredRate
from bsmamba2_cluster.song_list import SCHEMA, SongList

SONGS = pa.table([["a", "b"], [3000, 1000], ["1", "1"]], schema=SCHEMA)
LISTED = SongList(SONGS, 5, 0, 0)


def test_hours_and_cost_follow_from_the_rate_and_the_bytes(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    measured = MeasuredRate(audio_s_per_worker_s=20.0, audio_s_per_byte=18.0, songs=7)
    plan = estimate(LISTED, storage, measured, workers=2, price=3.0)
    assert plan.audio_hours == 20.0  # 4,000 bytes of 18 s
    assert plan.hours == 0.5  # 20 h at 2 x 20 x real time
    assert plan.cost == 3.0  # one worker-hour
    assert (plan.songs, plan.already, plan.measured_on) == (2, 5, 7)


def test_a_stated_rate_replaces_the_measured_one(tmp_path: Path) -> None:
    measured = MeasuredRate(20.0, 18.0, 7)
    plan = estimate(LISTED, open_storage(str(tmp_path)), measured, workers=1, rate=40.0)
    assert (plan.hours, plan.cost, plan.measured_on) == (0.5, None, 0)


def test_without_any_rate_there_are_no_hours(album: Path) -> None:
    storage = open_storage(str(album))
    entries = [entry for page in storage.pages() for entry in page if entry.key == "one.flac"]
    table = pa.table(
        [[e.key for e in entries], [e.size for e in entries], [e.version for e in entries]],
        schema=SCHEMA,
    )
    plan = estimate(SongList(table, 0, 0, 0), storage, None, workers=1)
    assert plan.audio_hours == pytest.approx(9000 / 44100 / 3600)
    assert (plan.times_real_time, plan.hours) == (None, None)


def test_songs_that_cannot_be_read_tell_nothing(tmp_path: Path) -> None:
    assert sampled_seconds_per_byte(LISTED, open_storage(str(tmp_path))) is None


@pytest.mark.parametrize("wrong", [{"rate": 0.0}, {"price": -1.0}])
def test_a_rate_or_price_out_of_range_is_refused(tmp_path: Path, wrong: dict[str, float]) -> None:
    with pytest.raises(AudioError, match="must be"):
        estimate(LISTED, open_storage(str(tmp_path)), None, workers=1, **wrong)
