"""The prepared first minutes on a card: every step is reported, however the others end."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from benchmarks.gpu.first_minutes import Step, report, steps


def python(title: str, code: str, seconds: float = 60) -> Step:
    return Step(title, [sys.executable, "-c", code], seconds)


def test_a_step_that_fails_hangs_or_is_missing_costs_only_its_own_entry(tmp_path: Path) -> None:
    planned = [
        python("fails", "print('first'); raise SystemExit(3)"),
        python("hangs", "import time; time.sleep(60)", 1),
        Step("missing", ["no-such-tool"], 60),
        python("works", "print('last')"),
    ]
    endings = report(planned, tmp_path, 5, dict(os.environ))
    assert endings[0].startswith("ended with 3")
    assert endings[1:3] == ["stopped after 1 s", "no-such-tool is not installed"]
    written = (tmp_path / "report.md").read_text()
    assert "\nfirst\n" in written
    assert "\nlast\n" in written


def test_a_step_without_time_is_reported(tmp_path: Path) -> None:
    assert report([python("late", "")], tmp_path, 0, {}) == ["no time left"]


def test_numbers_come_before_speed(tmp_path: Path) -> None:
    titles = [step.title for step in steps(tmp_path, None)]
    assert titles.index("numbers") < titles.index("memory errors") < titles.index("benchmark")
