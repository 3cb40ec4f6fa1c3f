"""An estimate of hours and cost, from a measured rate."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bsmamba2 import AudioError, Error
from bsmamba2.errors import require
from bsmamba2.files.song_file import SongFile
from bsmamba2_cluster.storage import Entry

if TYPE_CHECKING:
    from bsmamba2_cluster.run_report import MeasuredRate
    from bsmamba2_cluster.song_list import SongList
    from bsmamba2_cluster.storage import Storage

SAMPLES = 8
"""Songs that are read to learn how long a byte is, if no run has measured it."""

MOST_SAMPLE_BYTES = 256 << 20
"""Larger songs are not read for this."""


@dataclass(frozen=True)
class Estimate:
    """What a run would take. Hours and cost are None without a rate, cost also without a price."""

    songs: int
    already: int
    bytes: int
    audio_hours: float | None
    """None if no song could be read."""
    workers: int
    times_real_time: float | None
    """Seconds of audio that one worker separates per second."""
    hours: float | None
    cost: float | None
    """In the currency of the price."""
    measured_on: int
    """Songs that the rate was measured on; 0 if the caller stated it."""

    def to_json(self) -> dict[str, Any]:
        """Returns the fields for a JSON object."""
        return {k: round(v, 3) if isinstance(v, float) else v for k, v in asdict(self).items()}


def estimate(
    listed: SongList,
    source: Storage,
    measured: MeasuredRate | None,
    *,
    workers: int,
    rate: float | None = None,
    price: float | None = None,
) -> Estimate:
    """Estimates the hours and the cost of a run.

    Args:
        listed: the songs to separate.
        source: where they are, to read some if no run has.
        measured: by earlier runs.
        workers: their number.
        rate: seconds of audio per second of one worker. Default: the measured one.
        price: of one worker for an hour.

    Raises:
        AudioError: an argument is out of range.
    """
    require(workers >= 1, "workers", "1 or more", workers, AudioError)
    require(rate is None or rate > 0, "rate", "above 0", rate, AudioError)
    require(price is None or price >= 0, "price", "0 or more", price, AudioError)
    per_byte = measured.audio_s_per_byte if measured else sampled_seconds_per_byte(listed, source)
    speed = rate or (measured.audio_s_per_worker_s if measured else None)
    audio_s = None if per_byte is None else listed.bytes * per_byte
    worker_hours = None if speed is None or audio_s is None else audio_s / speed / 3600
    return Estimate(
        len(listed.songs),
        listed.done,
        listed.bytes,
        None if audio_s is None else audio_s / 3600,
        workers,
        speed,
        None if worker_hours is None else worker_hours / workers,
        None if worker_hours is None or price is None else worker_hours * price,
        measured.songs if measured and rate is None else 0,
    )


def sampled_seconds_per_byte(listed: SongList, source: Storage) -> float | None:
    """Reads a few songs of all sizes; returns seconds of audio per byte, None without a song."""
    seconds = size = 0.0
    for row in listed.limited(SAMPLES).songs.to_pylist():
        if row["bytes"] > MOST_SAMPLE_BYTES:
            continue
        try:
            length = _seconds(source, row)
        except Error:
            continue
        seconds, size = seconds + length, size + row["bytes"]
    return seconds / size if size else None


def _seconds(source: Storage, row: dict[str, Any]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / row["key"].rpartition("/")[2]
        source.download(Entry(row["key"], row["bytes"], row["version"], datetime.now(UTC)), path)
        with SongFile(path) as song:
            return song.samples / song.sample_rate
