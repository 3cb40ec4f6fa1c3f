"""Reads ONNX Runtime's profile: which nodes a run executed, where, and on which tensors."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

Tensors = list[tuple[str, list[int]]]
"""Type and shape of each tensor."""
SIZES = {"float": 4, "float16": 2, "bfloat16": 2, "int64": 8, "int32": 4, "bool": 1}
"""Bytes of a value, by type."""


@dataclass(frozen=True)
class Node:
    """A node that a run executed."""

    operator: str
    provider: str
    inputs: Tensors
    outputs: Tensors


def read_nodes(path: Path, run: int) -> list[Node]:
    """Returns the nodes of one run of a session, in order."""
    events = json.loads(path.read_text(encoding="utf-8"))
    whole = [event for event in events if event["name"] == "SequentialExecutor::Execute"][run]
    start, end = whole["ts"], whole["ts"] + whole["dur"]
    found = []
    for event in events:
        if event["name"].endswith("_kernel_time") and start <= event["ts"] < end:
            known = event["args"]
            inputs, outputs = (
                [pair for tensor in known[key] for pair in tensor.items()]
                for key in ("input_type_shape", "output_type_shape")
            )
            found.append(Node(known["op_name"], known["provider"], inputs, outputs))
    return found


def tensor_bytes(tensors: Tensors) -> int:
    """Returns the size of all tensors."""
    return sum(SIZES[kind] * math.prod(shape) for kind, shape in tensors)
