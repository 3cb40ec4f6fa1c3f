"""Rows of figures of the benchmark on a GPU: measured here or in a process of its own, and shown.

Without torch. Every part that needs bsmamba2 imports this one first.
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
from pathlib import Path
from typing import Any

Row = dict[str, Any]
"""Columns by name; says in ``note`` why there are no figures, in ``ok`` whether a number is right.
"""
Rows = list[Row]

LEAST_DB = {"fp32": 90, "fp16": 45, "bf16": 35}
"""Of the network against the same in float32 with the plain scan."""
WRONG = "wrong, so not timed"
LEAST_SECONDS = 20
"""Loading a model takes that; with less left no process is begun."""
MARK = "row: "
"""Before each row that a process prints."""


def parts_alone(package: str) -> None:
    """From now on the package is its parts alone: its ``__init__`` is not run.

    Raises:
        ModuleNotFoundError: there is no such package.
    """
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        del sys.modules[name]
    found = importlib.util.find_spec(package)
    if found is None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    sys.modules[package] = importlib.util.module_from_spec(found)


try:
    import bsmamba2  # noqa: F401
except ModuleNotFoundError:
    # What songs are read and written with is not installed here, nor needed for most.
    parts_alone("bsmamba2")


def failed(error: Exception) -> str:
    """Why a row has no figures, in a line; the whole of it goes to standard error."""
    if isinstance(error, ModuleNotFoundError):
        return f"not installed ({error.name})"
    traceback.print_exception(error, file=sys.stderr)
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


def reason(error: Exception) -> str:
    """As :func:`failed`; what the runtime says on purpose needs no more."""
    from bsmamba2.errors import Error

    return str(error) if isinstance(error, Error) else failed(error)


def median_seconds(run: Callable[[], Any], least: int) -> float:
    """By the host's clock: of the runs that fit in a second, ``least`` to 50, after one more."""
    start = time.perf_counter()
    run()
    count = max(least, min(50, int(1 / (time.perf_counter() - start))))
    times = []
    for _ in range(count):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    return str(value)


def show(title: str, rows: Rows) -> Rows:
    """Prints rows as a table, at once."""
    print(f"\n## {title}", flush=True)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [columns, *([shown(row.get(key, "")) for key in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for line in cells:
        print("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)), flush=True)
    return rows


def run_apart(script: str, task: Mapping[str, Any], seconds: float, **environment: str) -> Rows:
    """The rows of a script beside this one, as far as it came in the time that it has.

    It is a process of its own, so what crashes or hangs costs its own rows alone; what it wrote to
    standard error is written to this one's.

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
        sys.stderr.write(text(late.stderr))
        return [*rows_of(late.stdout), {"what": what, "note": f"stopped after {seconds:.0f} s"}]
    said = text(done.stderr)
    sys.stderr.write(said)
    rows = rows_of(done.stdout)
    if done.returncode:
        last = (said.strip().splitlines() or [""])[-1]
        rows.append({"what": what, "note": f"ended with {done.returncode}: {last}"[:300]})
    return rows


def text(output: bytes | None) -> str:
    """What a process printed, which is None where one that was stopped printed nothing."""
    return (output or b"").decode(errors="replace")


def rows_of(output: bytes | None) -> Rows:
    """The rows among what a process printed; libraries print too."""
    lines = text(output).splitlines()
    return [json.loads(line.removeprefix(MARK)) for line in lines if line.startswith(MARK)]


def answer(rows: Callable[[dict[str, Any]], Iterator[Row]]) -> None:
    """The other end: prints each row of the task in the command line as soon as it is there."""
    for row in rows(json.loads(sys.argv[1])):
        print(MARK + json.dumps(row), flush=True)
