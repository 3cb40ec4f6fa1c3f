"""What the benchmark on a GPU found, as rows of a table."""

from __future__ import annotations

import sys
import traceback
from typing import Any

import gpu_package  # noqa: F401

from bsmamba2.errors import Error

Row = dict[str, Any]
"""Columns by name; says in ``note`` why there are no figures, in ``ok`` whether a number is right.
"""
Rows = list[Row]

LEAST_DB = {"fp32": 90, "fp16": 45, "bf16": 35}
"""Of the network against the same in float32 with the plain scan."""
WRONG = "wrong, so not timed"


def failed(error: Exception) -> str:
    """Why a row has no figures, in a line; the whole of it goes to standard error."""
    if isinstance(error, ModuleNotFoundError):
        return f"not installed ({error.name})"
    traceback.print_exception(error, file=sys.stderr)
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


def reason(error: Exception) -> str:
    """As :func:`failed`; what the runtime says on purpose needs no more."""
    return str(error) if isinstance(error, Error) else failed(error)


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
