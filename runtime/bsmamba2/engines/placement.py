"""Checks that ONNX Runtime placed a model's nodes on the requested device.

ONNX Runtime would silently run a node that has no kernel there on the CPU, with copies both ways,
many times slower. This module reads its record of the assignment, not its log.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from bsmamba2.errors import DeviceError

if TYPE_CHECKING:
    from bsmamba2.devices.device import Device

__all__ = ["RECORD", "SHAPE_ARITHMETIC", "require_placement"]

RECORD = "session.record_ep_graph_assignment_info"
"""The session option that enables the record."""

CPU = "CPUExecutionProvider"

# ONNX Runtime deliberately computes lengths, a few integers, on the CPU. The record has no types.
# But these operators have float kernels on every GPU provider, so one on the CPU computes a length.
SHAPE_ARITHMETIC = {
    "Add", "And", "Cast", "Concat", "Constant", "ConstantOfShape", "Div", "Equal", "Expand",
    "Flatten", "Gather", "Greater", "GreaterOrEqual", "Identity", "Less", "LessOrEqual", "Max",
    "Min", "Mod", "Mul", "Neg", "Not", "Or", "Range", "ReduceMax", "ReduceMin", "ReduceProd",
    "Reshape", "Shape", "Size", "Slice", "Split", "Squeeze", "Sub", "Unsqueeze", "Where",
}  # fmt: skip


def require_placement(session: Any, device: Device, provider: str) -> None:
    """Refuses a session that runs anything but shape arithmetic on another provider.

    Args:
        session: an ``onnxruntime.InferenceSession`` with the option :data:`RECORD`.
        device: the requested device, for the message.
        provider: the provider of the device.

    Raises:
        DeviceError: the message names the operators and where they run.
    """
    elsewhere: Counter[tuple[str, str]] = Counter()
    for part in session.get_provider_graph_assignment_info():
        for node in part.get_nodes() if part.ep_name != provider else ():
            standard = node.domain in ("", "ai.onnx")
            if part.ep_name != CPU or not (standard and node.op_type in SHAPE_ARITHMETIC):
                elsewhere[node.op_type, part.ep_name] += 1
    if elsewhere:
        found = ", ".join(f"{n} {op} on {where}" for (op, where), n in elsewhere.most_common(4))
        more = " and more" if len(elsewhere) > 4 else ""
        raise DeviceError(
            f"device {device} was requested, but it has no kernels for part of this model ({found}"
            f"{more}): upgrade ONNX Runtime, export the model with target='ort', or use "
            "device='cpu'"
        )
