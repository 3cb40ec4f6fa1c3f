"""Reads the log of the stand-ins: what ONNX Runtime asked the card to do in each run."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

LARGE = 1_000_000
"""Values from which an elementwise operation takes longer than its launch."""
ELEMENTWISE = re.compile(
    r"_(Unary|Binary)ElementWise|VariadicElementWise|_Concat|_Split|LayerNorm|residual_norm"
)
PER_THREAD = 4
"""Values that a thread of ONNX Runtime's elementwise kernels computes."""


@dataclass(frozen=True)
class Launch:
    """A kernel that was launched."""

    name: str
    threads: int

    @property
    def is_elementwise(self) -> bool:
        return ELEMENTWISE.search(self.name) is not None

    @property
    def is_large(self) -> bool:
        return self.threads * PER_THREAD >= LARGE


@dataclass
class Run:
    """One run of a model, or everything before the first."""

    launches: list[Launch] = field(default_factory=list)
    products: list[tuple[int, ...]] = field(default_factory=list)
    """Rows, columns and inner size of each product, and their number."""
    copies: list[tuple[str, int, int]] = field(default_factory=list)
    """``sync`` or ``async``, CUDA's kind of each copy (1 to the card, 2 from it), and bytes."""
    others: list[str] = field(default_factory=list)

    @property
    def operations(self) -> int:
        """What the card executes: kernels, products and reductions."""
        return len(self.launches) + len(self.products) + self.count("reduce")

    @property
    def large_elementwise(self) -> int:
        return sum(launch.is_large and launch.is_elementwise for launch in self.launches)

    def count(self, kind: str) -> int:
        """Returns the number of other lines of a kind, e.g. ``replay``, ``illegal``."""
        return sum(line.partition("\t")[0] == kind for line in self.others)


def read_runs(path: Path) -> list[Run]:
    """Returns what happened before the first run, in each run, and after the last."""
    runs = [Run()]
    for kind, fields in _lines(path):
        if kind == "mark":
            runs.append(Run())
            continue
        run = runs[-1]
        if kind == "launch":
            grid, block = (math.prod(map(int, f.split(","))) for f in fields[:2])
            run.launches.append(Launch(fields[3], grid * block))
        elif kind == "product":
            sizes = tuple(map(int, fields[0].split(",")))
            run.products.append((*sizes, int(fields[1])))
        elif kind == "copy":
            run.copies.append((fields[0], int(fields[1]), int(fields[2])))
        else:
            run.others.append("\t".join([kind, *fields]))
    return runs


def _lines(path: Path) -> Iterator[tuple[str, list[str]]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        kind, *fields = line.removeprefix("captured\t").split("\t")
        yield kind, fields
