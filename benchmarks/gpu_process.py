"""A measurement in a process of its own, so that what crashes or hangs costs its own rows alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gpu_table import Row, Rows

LEAST_SECONDS = 20
"""Loading a model takes that; with less left nothing is begun."""


def run(script: str, task: Mapping[str, Any], seconds: float, **environment: str) -> Rows:
    """The rows of a script beside this one, as far as it came in the time that it has.

    Args:
        task: what it is to do, for :func:`answer`; ``what`` names the row of a failure.
    """
    what = task["what"]
    if seconds < LEAST_SECONDS:
        return [{"what": what, "note": "no time left"}]
    command = [sys.executable, str(Path(__file__).with_name(script)), json.dumps(task)]
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=seconds, env={**os.environ, **environment}
        )
    except subprocess.TimeoutExpired as late:
        return [*rows_of(late.stdout), {"what": what, "note": f"stopped after {seconds:.0f} s"}]
    said = done.stderr.decode(errors="replace")
    sys.stderr.write(said)
    rows = rows_of(done.stdout)
    if done.returncode:
        last = (said.strip().splitlines() or [""])[-1]
        rows.append({"what": what, "note": f"ended with {done.returncode}: {last}"[:300]})
    return rows


def rows_of(output: bytes | None) -> Rows:
    """The rows among what a process printed; libraries print too."""
    lines = (output or b"").decode(errors="replace").splitlines()
    return [json.loads(line.removeprefix(MARK)) for line in lines if line.startswith(MARK)]


MARK = "row: "


def answer(rows: Callable[[dict[str, Any]], Iterator[Row]]) -> None:
    """The other end: prints each row of the task in the command line as soon as it is there."""
    for row in rows(json.loads(sys.argv[1])):
        print(MARK + json.dumps(row), flush=True)
