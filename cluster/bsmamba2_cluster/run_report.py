"""What a run leaves besides stems and records: its failures, and its measured rate."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from bsmamba2.errors import shown
from bsmamba2_cluster.recipe import FOLDER
from bsmamba2_cluster.storage import StorageError

if TYPE_CHECKING:
    from bsmamba2_cluster.storage import Storage

FAILURES = f"{FOLDER}/failures"
RUNS = f"{FOLDER}/runs"
ROWS = 10_000
"""Failures per file, which bounds the memory of the report."""
EVERY_S = 30.0
"""How often new failures are written."""


class FailureReport:
    """Writes failures as JSON lines, in files of at most :data:`ROWS` rows."""

    def __init__(self, destination: Storage, run: str) -> None:
        self._destination, self._run = destination, run
        self._rows: list[str] = []
        self._file = 1
        self._written = 0
        self._next_s = time.monotonic() + EVERY_S

    @property
    def address(self) -> str:
        """The folder of the report's files; empty without a failure."""
        any_rows = self._rows or self._file > 1
        return self._destination.address_of(f"{FAILURES}/{self._run}") if any_rows else ""

    def add(self, song: str, status: str, error: str, worker: str = "") -> None:
        """Adds a row, and writes the file if it is full or it is time."""
        row = {"song": song, "status": status, "error": error, "worker": worker}
        self._rows.append(json.dumps(row))
        if len(self._rows) >= ROWS:
            self.flush()
            self._rows, self._file, self._written = [], self._file + 1, 0
        elif time.monotonic() >= self._next_s:
            self.flush()

    def flush(self) -> None:
        """Writes the current file."""
        self._next_s = time.monotonic() + EVERY_S
        if len(self._rows) > self._written:
            data = ("\n".join(self._rows) + "\n").encode()
            key = f"{FAILURES}/{self._run}/{self._file:04}.jsonl"
            self._destination.replace(key, data)
            self._written = len(self._rows)


@dataclass
class RunSummary:
    """The counts of a run; while it lasts, its progress."""

    run: str
    source: str
    destination: str
    workers: int = 0
    devices: str = ""
    songs: int = 0
    """Songs to separate, of which ``done``, ``failed`` and ``set_aside`` are finished."""
    bytes: int = 0
    """Bytes of these songs."""
    already: int = 0
    """Songs that were done before this run, or by another one meanwhile."""
    done: int = 0
    failed: int = 0
    set_aside: int = 0
    done_bytes: int = 0
    """Bytes of the songs that are finished in any way."""
    separated_bytes: int = 0
    audio_s: float = 0.0
    """Seconds of audio separated by this run."""
    seconds: float = 0.0
    """Duration of the run."""
    busy_s: float = 0.0
    """Time that workers spent on songs that were done."""
    failures: str = ""
    """Address of the report of failures; empty without any."""
    notes: list[str] = field(default_factory=list)

    @property
    def times_real_time(self) -> float:
        """Seconds of audio per second of the run."""
        return self.audio_s / self.seconds if self.seconds else 0.0

    @property
    def left_s(self) -> float | None:
        """Estimate of the time left, by bytes; None before the first song."""
        if not self.done_bytes or not self.seconds:
            return None
        return max(0.0, (self.bytes - self.done_bytes) * self.seconds / self.done_bytes)

    def to_json(self) -> dict[str, Any]:
        """Returns the fields for a JSON object."""
        left = self.left_s
        rounded = {k: round(v, 3) if isinstance(v, float) else v for k, v in asdict(self).items()}
        return rounded | {
            "times_real_time": round(self.times_real_time, 3),
            "left_s": None if left is None else round(left, 1),
        }

    def keep(self, destination: Storage) -> None:
        """Writes the summary into the destination, for later estimates."""
        destination.replace(f"{RUNS}/{self.run}.json", json.dumps(self.to_json()).encode())


@dataclass(frozen=True)
class MeasuredRate:
    """What earlier runs measured."""

    audio_s_per_worker_s: float
    """Seconds of audio that one worker separates per second."""
    audio_s_per_byte: float
    songs: int
    """Songs that it was measured on."""


def measured_rate(destination: Storage) -> MeasuredRate | None:
    """Reads the rate of all earlier runs of a destination; None without one.

    Raises:
        StorageError: it cannot be read.
    """
    audio_s = busy_s = songs = size = 0.0
    for page in destination.pages(RUNS):
        for entry in page:
            try:
                fields = json.loads(destination.read(entry.key) or b"{}")
                one = [float(fields[n]) for n in ("audio_s", "busy_s", "done", "separated_bytes")]
            except (ValueError, KeyError, TypeError):
                raise StorageError(
                    f"{destination.address_of(entry.key)} is damaged: remove it; got "
                    f"{shown(entry.size)} bytes"
                ) from None
            audio_s, busy_s = audio_s + one[0], busy_s + one[1]
            songs, size = songs + one[2], size + one[3]
    if not (busy_s > 0 and size > 0 and audio_s > 0):
        return None
    return MeasuredRate(audio_s / busy_s, audio_s / size, int(songs))
