"""Runs a stream step by step over its grid, for networks and engines alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bsmamba2.audio.schedule import Schedule

Step = Callable[[Any, Any], tuple[Any, Any]]
"""``step(block, lookahead)``: arrays of NumPy or tensors of PyTorch, in and out."""


def run_steps(step: Step, spectrum: Any, schedule: Schedule) -> list[Any]:
    """Runs all steps of a spectrum (batch, channels, frames, …).

    Returns:
        The stems of every block and of the last lookahead, which joined along axis 3 are the stems
        of the whole spectrum.
    """
    kept = []
    for part in schedule.steps(spectrum.shape[2]):
        block, lookahead = step(spectrum[:, :, part.block], spectrum[:, :, part.lookahead])
        kept += [block, lookahead] if part.last else [block]
    return kept


def network_step(net: Any) -> Step:
    """Returns a network's step that keeps its own states, like an engine's."""
    states = net.start()

    def step(block: Any, lookahead: Any) -> tuple[Any, Any]:
        nonlocal states
        block, lookahead, states = net.step(block, lookahead, states)
        return block, lookahead

    return step
