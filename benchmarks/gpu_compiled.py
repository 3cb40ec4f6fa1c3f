"""``torch.compile`` on a GPU: the network block by block, and the scan by itself.

A process of its own, as compiling can take longer than there is time; started by
:func:`time_compiled`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gpu_chip as chip
import gpu_rows
import torch
from gpu_chip import Clock
from gpu_network import CHUNK_SECONDS, Bench, Truth, eager
from gpu_rows import Row, Rows, answer
from gpu_scans import AXES, HEADS, Kernel, N, P, random_call, scan_floor, time_scan
from torch import Tensor

from bsmamba2.devices import cuda
from bsmamba2_network import BSMamba2, model
from bsmamba2_network.scan import mamba2_scan, scan


def time_compiled(most: dict[str, float], library: Path, clock: Clock) -> Rows:
    """The rows of a process that is stopped when the time is up."""
    task = {
        "what": "torch.compile", "device": chip.DEVICE, "most": most, "library": str(library),
        "preset": "paper", "compiler": "inductor", "seconds": CHUNK_SECONDS,
    }  # fmt: skip
    return gpu_rows.run_apart("gpu_compiled.py", task, clock.left())


def rows(task: dict[str, Any]) -> Iterator[Row]:
    """The network with our kernel in its blocks, the plain scan alone, and the network with it."""
    chip.DEVICE, compiler = task["device"], task["compiler"]
    chip.exact_float32()
    ours = Kernel(cuda.load(Path(task["library"])))
    ours.states, ours.compiled = False, True
    mamba2_scan.register_kernel(chip.DEVICE)(ours)
    yield network("our kernel", ours, task)
    compiled = torch.compile(scan, dynamic=False, backend=compiler)
    for axis, (batch, length) in AXES.items():
        given = random_call(batch, length, HEADS, N, torch.bfloat16, 0)
        call = (*given, P, N, False, 1e-5)
        exact = scan(given[0].float(), *call[1:])[0]
        floor = scan_floor(batch, length, torch.bfloat16)
        run = partial(first, compiled, call)
        yield time_scan("torch.compile", run, "bf16", axis, exact, floor, task["most"])
    # The operator is one that a compiler does not look into; its body is plain PyTorch.
    model.mamba2_scan = plain
    yield network("plain scan", ours, task)


def network(who: str, ours: Kernel, task: dict[str, Any]) -> Row:
    """The network with all blocks compiled; those of an axis have the same shapes, so two are."""
    net = BSMamba2.untrained(task["preset"]).eval().to(chip.DEVICE)
    truth = Truth(net, ours)
    truth.stems(task["seconds"])  # before anything is compiled
    for layer in net.layers:
        for block in layer:
            block.compile(dynamic=False, backend=task["compiler"])
    bench = Bench(net, ours, Clock(0), task["most"], truth)
    who = f"torch.compile, {who}"
    return bench.row(who, "bf16", task["seconds"], 1, eager(net, "bf16"))


def plain(*inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
    """The operator's body, without the operator."""
    with torch.autocast(chip.DEVICE, enabled=False):
        return scan(*inputs)


def first(run: Any, inputs: tuple[Any, ...]) -> Tensor:
    return run(*inputs)[0]


if __name__ == "__main__":
    answer(rows)
