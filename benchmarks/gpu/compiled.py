"""``torch.compile`` on a GPU: the network block by block, and the scan alone.

It runs in a separate process, started by :func:`time_compiled`, because compiling may take longer
than the time left.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu import chip, rows
from benchmarks.gpu.chip import Clock
from benchmarks.gpu.network import CHUNK_SECONDS, Bench, Truth, eager
from benchmarks.gpu.rows import Row, Rows, Task, print_rows
from benchmarks.gpu.scans import (
    AXES,
    HEADS,
    Kernel,
    N,
    P,
    first_output,
    random_call,
    scan_floor,
    time_scan,
)
from bsmamba2.devices import cuda
from bsmamba2_network import BSMamba2, model
from bsmamba2_network.scan import mamba2_scan, scan


def time_compiled(ceilings: dict[str, float], library: Path, clock: Clock) -> Rows:
    """Returns the rows of a process that is stopped when the time is up."""
    task = {
        "what": "torch.compile", "device": chip.DEVICE, "ceilings": ceilings,
        "library": str(library), "preset": "paper", "compiler": "inductor",
        "seconds": CHUNK_SECONDS,
    }  # fmt: skip
    return rows.run_process("benchmarks.gpu.compiled", task, clock.left_s())


def measure(task: Task) -> Iterator[Row]:
    """Times the network with our kernel, then the plain scan alone and in the network."""
    chip.DEVICE, compiler = task["device"], task["compiler"]
    chip.exact_float32()
    ours = Kernel(cuda.load(Path(task["library"])))
    ours.states, ours.compiled = False, True
    mamba2_scan.register_kernel(chip.DEVICE)(ours)
    yield time_network("our kernel", ours, task)
    compiled = torch.compile(scan, dynamic=False, backend=compiler)
    for axis, (batch, length) in AXES.items():
        inputs = random_call(batch, length, HEADS, N, torch.bfloat16, 0)
        call: tuple[Any, ...] = (*inputs, P, N, False, 1e-5)
        exact = scan(inputs[0].float(), *call[1:])[0]
        floor = scan_floor(batch, length, torch.bfloat16)
        run = partial(first_output, compiled, call)
        yield time_scan("torch.compile", run, "bf16", axis, exact, floor, task["ceilings"])
    # The compiler cannot see inside the operator, so its body, plain PyTorch, replaces it.
    model.mamba2_scan = plain_scan  # type: ignore[attr-defined, assignment]
    yield time_network("plain scan", ours, task)


def time_network(who: str, ours: Kernel, task: Task) -> Row:
    """Times the network with every block compiled.

    All blocks of an axis have the same shapes, so only two are compiled.
    """
    net = BSMamba2.untrained(task["preset"]).eval().to(chip.DEVICE)
    truth = Truth(net, ours)
    truth.stems(task["seconds"])  # before anything is compiled
    for layer in net.layers:
        for block in layer.children():
            block.compile(dynamic=False, backend=task["compiler"])
    bench = Bench(net, ours, Clock(0), task["ceilings"], truth)
    who = f"torch.compile, {who}"
    return bench.row(who, "bf16", task["seconds"], 1, eager(net, "bf16"))


def plain_scan(*inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Runs the body of the operator without the operator."""
    with torch.autocast(chip.DEVICE, enabled=False):
        return scan(*inputs)


if __name__ == "__main__":
    print_rows(measure)
