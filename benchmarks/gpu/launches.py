"""Counts what a shipped graph asks a card to do for one chunk, and models the time.

    PYTHONPATH=tests python -m benchmarks.gpu.launches [GRAPH] [--seconds 8] [--output FOLDER]

No card is needed: ONNX Runtime's real CUDA provider runs on stand-ins for NVIDIA's libraries
(``tests/gpu/stand_in``), which log every launch. Shapes and types of every node come from ONNX
Runtime's profile. The modelled time is an estimate, not a measurement: of each operation it takes
the longest of the time for its bytes, for its arithmetic, and for its launches.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gpu.stand_in.build import build
from gpu.stand_in.log import Run, read_runs
from gpu.stand_in.profile import SIZES, Tensors, read_nodes, tensor_bytes

ROOT = Path(__file__).parents[2]
SITE = Path(os.environ.get("BSMAMBA2_ORT_GPU", ROOT / "build" / "onnxruntime-gpu"))
GRAPHS = ROOT / "runtime" / "bsmamba2" / "models" / "graphs"
PLAIN_RUN = 1
"""The run that is counted: after the first, which allocates, and before a graph is recorded."""

BYTES_PER_S = 4.3e12
FLOPS_PER_S = {"narrow": 780e12, "float": 60e12, "scan": 390e12}
"""Assumed for an H200: dense bf16 products, float32 products without TF32, and half of the former
for the scan, whose products are warp by warp."""
LAUNCH_S = 2e-6
"""The least time of a launch in a replayed CUDA graph."""

VIEWS = {"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Shape", "Constant"}
SEGMENT = 64  # tokens of the scan's kernels


@dataclass(frozen=True)
class Operation:
    """Equal nodes of a graph: what each moves and computes."""

    operator: str
    outputs: str
    count: int
    bytes: int
    flops: int
    microseconds: float
    """Of all of them, modelled."""


def cost(operator: str, inputs: Tensors, outputs: Tensors) -> tuple[int, int, float]:
    """Returns bytes, floating-point operations and the modelled seconds of one node."""
    if operator in VIEWS:
        return 0, 0, 0.0
    moved, flops, peak, launches = tensor_bytes(inputs + outputs), 0, "float", 1
    if operator in ("MatMul", "FusedMatMul", "Gemm"):
        factor = inputs[1][1]
        inner = inputs[0][1][-1] if inputs[0][1][-1] in factor else inputs[0][1][-2]
        flops = 2 * math.prod(outputs[0][1]) * inner
        peak = "float" if inputs[0][0] == "float" else "narrow"
    elif operator == "mamba2_scan":
        moved, flops = scan_cost(inputs, outputs)
        peak, launches = "scan", 3
    elif operator in ("Gather", "Slice", "Split"):
        moved = 2 * tensor_bytes(outputs)
    seconds = max(moved / BYTES_PER_S, flops / FLOPS_PER_S[peak], launches * LAUNCH_S)
    return moved, flops, seconds


def scan_cost(inputs: Tensors, outputs: Tensors) -> tuple[int, int]:
    """Returns bytes and operations of a scan's three kernels.

    Besides input and output, B and C are written and read once, y is read and written again by the
    norm, and so are the heads' mean squares. Repeated reads of B and C are assumed to hit the
    cache. Of the scores above the diagonal a quarter is skipped.
    """
    batch, length, _ = inputs[0][1]
    heads, state, head_dim = inputs[4][1][0], inputs[8][1][-1], inputs[8][1][-2]
    tokens, number = batch * length, SIZES[inputs[0][0]]
    again = 2 * 2 * state * number + 2 * heads * head_dim * number + 2 * heads * 4
    moved = tensor_bytes(inputs[:1] + outputs[:1]) + tokens * again
    scores = 2 * SEGMENT * SEGMENT * (state + head_dim) * 3 // 4
    segments = batch * -(-length // SEGMENT) * heads
    return moved, segments * (scores + 2 * 2 * SEGMENT * state * head_dim)


def operations(profile: Path) -> list[Operation]:
    """Returns the nodes that ran on the card in one run, equal ones together, longest first."""
    counts: Counter[str] = Counter()
    for node in read_nodes(profile, PLAIN_RUN):
        if node.provider == "CUDAExecutionProvider":
            counts[json.dumps([node.operator, node.inputs, node.outputs])] += 1
    found = []
    for text, count in counts.items():
        operator, inputs, outputs = json.loads(text)
        moved, flops, seconds = cost(operator, inputs, outputs)
        printed = ", ".join(f"{kind} {'×'.join(map(str, shape))}" for kind, shape in outputs)
        found.append(Operation(operator, printed, count, moved, flops, count * seconds * 1e6))
    return sorted(found, key=lambda operation: -operation.microseconds)


def measure(graph: Path, seconds: float) -> tuple[Run, list[Operation], dict[str, Any]]:
    """Runs a graph on the stand-ins; returns one plain run, its operations, and the placement."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        provider = SITE / "onnxruntime" / "capi" / "libonnxruntime_providers_cuda.so"
        libraries = build(provider, SITE / "nvidia" / "cu13" / "include", folder / "libraries")
        log, profile = folder / "log", folder / "profile"
        command = [sys.executable, str(ROOT / "tests/gpu/stand_in/run.py"), str(graph)]
        command += [str(seconds), "--profile", str(profile)]
        variables = os.environ | {
            "LD_LIBRARY_PATH": str(libraries),
            "PYTHONPATH": str(SITE),
            "STAND_IN_LOG": str(log),
        }
        done = subprocess.run(command, capture_output=True, text=True, env=variables)
        if done.returncode:
            raise SystemExit(done.stderr)
        found = json.loads(done.stdout.splitlines()[-1])
        return read_runs(log)[1 + PLAIN_RUN], operations(Path(found["profile"])), found


def summary(run: Run, found: list[Operation], outcome: dict[str, Any]) -> dict[str, Any]:
    """Returns the figures that the page begins with."""
    return {
        "operations": run.operations,
        "kernels": len(run.launches),
        "products": len(run.products),
        "large_elementwise": run.large_elementwise,
        "synchronous_copies": sum(way == "sync" for way, _, _ in run.copies),
        "copies_on_the_card": sum(kind == 3 for _, kind, _ in run.copies),
        "recorded": outcome["recorded"],
        "modelled_ms": round(sum(operation.microseconds for operation in found) / 1000, 2),
        "gigabytes": round(sum(o.count * o.bytes for o in found) / 1e9, 2),
        "teraflop": round(sum(o.count * o.flops for o in found) / 1e12, 2),
    }


def page(name: str, seconds: float, figures: dict[str, Any], found: list[Operation]) -> str:
    """Returns the results in Markdown."""
    lines = [
        f"# What {name} asks of a card",
        "",
        f"One chunk of {seconds:g} s, on stand-ins for NVIDIA's libraries: the counts are real, "
        "the time is a model and was not measured. Written by "
        "`PYTHONPATH=tests python -m benchmarks.gpu.launches`.",
        "",
        f"Model: {BYTES_PER_S / 1e12:g} TB/s; {FLOPS_PER_S['narrow'] / 1e12:g} TFLOP/s for bf16 "
        f"products, {FLOPS_PER_S['float'] / 1e12:g} for float32, {FLOPS_PER_S['scan'] / 1e12:g} "
        f"for the scan; at least {LAUNCH_S * 1e6:g} µs per launch.",
        "",
        *(f"- {key.replace('_', ' ')}: {value}" for key, value in figures.items()),
        "",
        "| operator | outputs | count | MB each | GFLOP each | µs, all, modelled |",
        "|---|---|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {o.operator} | {o.outputs} | {o.count} | {o.bytes / 1e6:.1f} | {o.flops / 1e9:.1f} | "
        f"{o.microseconds:.0f} |"
        for o in found
        if o.microseconds
    ]
    return "\n".join([*lines, ""])


def main() -> None:
    """Counts one graph and writes ``launches.md`` and ``launches.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("graph", nargs="?", default="paper-waveform-bf16")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results")
    arguments = parser.parse_args()
    path = GRAPHS / f"{arguments.graph}.onnx"
    run, found, outcome = measure(path, arguments.seconds)
    figures = summary(run, found, outcome)
    launches = Counter((launch.name, launch.threads) for launch in run.launches)
    content = {
        "graph": arguments.graph,
        "seconds": arguments.seconds,
        "summary": figures,
        "operations": [asdict(operation) for operation in found],
        "kernels": [[*key, count] for key, count in launches.most_common()],
    }
    text = json.dumps(content, indent=1)
    (arguments.output / "launches.json").write_text(text + "\n", encoding="utf-8")
    written = page(arguments.graph, arguments.seconds, figures, found)
    (arguments.output / "launches.md").write_text(written, encoding="utf-8")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
