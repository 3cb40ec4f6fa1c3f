"""The report of failures, and the measured rate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bsmamba2_cluster import run_report
from bsmamba2_cluster.address import open_storage
from bsmamba2_cluster.run_report import FailureReport, RunSummary, measured_rate
from bsmamba2_cluster.storage import StorageError


def test_failures_are_json_lines_in_files_of_bounded_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_report, "ROWS", 3)
    report = FailureReport(open_storage(str(tmp_path)), "run")
    assert report.address == ""
    for number in range(7):
        report.add(f"{number}\n.flac", "failed", "damaged")
    report.flush()
    files = sorted(Path(report.address).iterdir())
    rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    assert [len(file.read_text().splitlines()) for file in files] == [3, 3, 1]
    assert [row["song"] for row in rows] == [f"{number}\n.flac" for number in range(7)]


def test_failures_are_written_while_the_run_lasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_report, "EVERY_S", 0.0)
    report = FailureReport(open_storage(str(tmp_path)), "run")
    report.add("a.flac", "failed", "damaged")
    assert "damaged" in (Path(report.address) / "0001.jsonl").read_text()


def test_the_rate_is_that_of_all_runs_together(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    assert measured_rate(storage) is None
    for run, audio_s in (("1", 300.0), ("2", 100.0)):
        summary = RunSummary(run, "songs", "stems", done=2, audio_s=audio_s, busy_s=20.0)
        summary.separated_bytes = 1000
        summary.keep(storage)
    rate = measured_rate(storage)
    assert rate is not None
    assert (rate.audio_s_per_worker_s, rate.audio_s_per_byte, rate.songs) == (10.0, 0.2, 4)


def test_a_damaged_summary_is_an_error_in_one_sentence(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    storage.replace(f"{run_report.RUNS}/1.json", b"[]")
    with pytest.raises(StorageError, match="damaged"):
        measured_rate(storage)


def test_the_time_left_is_estimated_by_bytes() -> None:
    summary = RunSummary("1", "songs", "stems", bytes=100)
    assert summary.left_s is None
    summary.done_bytes, summary.seconds = 25, 10.0
    assert summary.left_s == 30.0
