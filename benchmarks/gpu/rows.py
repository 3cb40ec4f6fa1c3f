"""Rows of a table: their limits and notes, their printing, and rows from other processes.

Imports no torch.
"""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from benchmarks.pages import ROOT

Row = dict[str, Any]
"""Columns by name. ``ok``: whether the numbers are right; ``note``: why figures are missing."""
Rows = list[Row]
Task = dict[str, Any]
"""The arguments of a process; they are passed as JSON."""

MIN_SNR_DB = {"fp32": 90, "fp16": 45, "bf16": 35}
"""The lowest allowed SNR of the network against float32 with the plain scan."""
WRONG = "wrong, so not timed"
MIN_SECONDS = 20
"""About the time to load a model; no process is started with less time left."""
MARK = "row: "
"""Precedes each row that a process prints."""


def describe_error(error: Exception) -> str:
    """Returns one line for a row's note, and prints the traceback to standard error."""
    if isinstance(error, ModuleNotFoundError):
        return f"not installed ({error.name})"
    traceback.print_exception(error, file=sys.stderr)
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


def describe_runtime_error(error: Exception) -> str:
    """Returns the message of an error of the runtime; others as :func:`describe_error` does."""
    from bsmamba2.errors import Error

    return str(error) if isinstance(error, Error) else describe_error(error)


def median_seconds(run: Callable[[], Any], min_runs: int) -> float:
    """Returns the median time of as many runs as fit in a second (``min_runs`` to 50), warm."""
    start = time.perf_counter()
    run()
    count = max(min_runs, min(50, int(1 / (time.perf_counter() - start))))
    times = []
    for _ in range(count):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def format_value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    return str(value)


def print_table(title: str, rows: Rows) -> None:
    """Prints the rows under a heading and flushes."""
    print(f"\n## {title}", flush=True)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [columns, *([format_value(row.get(key, "")) for key in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for line in cells:
        print("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)), flush=True)


def run_process(module: str, task: Mapping[str, Any], seconds: float, **environment: str) -> Rows:
    """Runs a module in a process and returns the rows it printed until it ended or was stopped.

    A crash or hang of the process loses only its own remaining rows. Its standard error is copied
    to this process's.

    Args:
        module: calls :func:`print_rows`.
        task: the argument; its ``what`` names the row that reports a failure.
        seconds: the process is stopped after this time.
        environment: variables to add.
    """
    what = task["what"]
    if seconds < MIN_SECONDS:
        return [{"what": what, "note": "no time left"}]
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **environment}
    command = [sys.executable, "-m", module, json.dumps(task)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=seconds, env=variables)
    except subprocess.TimeoutExpired as timeout:
        sys.stderr.write(decode(timeout.stderr))
        return [
            *parse_rows(timeout.stdout),
            {"what": what, "note": f"stopped after {seconds:.0f} s"},
        ]
    errors = decode(done.stderr)
    sys.stderr.write(errors)
    rows = parse_rows(done.stdout)
    if done.returncode:
        last = (errors.strip().splitlines() or [""])[-1]
        rows.append({"what": what, "note": f"ended with {done.returncode}: {last}"[:300]})
    return rows


def decode(output: bytes | None) -> str:
    """Returns the output of a process as text; a stopped process may have None."""
    return (output or b"").decode(errors="replace")


def parse_rows(output: bytes | None) -> Rows:
    """Returns the rows in the output of a process; skips other lines, which libraries print."""
    lines = decode(output).splitlines()
    return [json.loads(line.removeprefix(MARK)) for line in lines if line.startswith(MARK)]


def print_rows(rows: Callable[[Task], Iterator[Row]]) -> None:
    """Runs in the process that :func:`run_process` starts: prints each row once it is measured."""
    for row in rows(json.loads(sys.argv[1])):
        print(MARK + json.dumps(row), flush=True)


def is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
