"""A stream run step by step over its grid, for a network and for an engine alike."""

from __future__ import annotations


def run_steps(step, spectrum, schedule):
    """What ``step(block, lookahead)`` makes of a spectrum (batch, channels, frames, …).

    The stems of every block, and of the last lookahead: parts that joined along axis 3 are the
    stems of the whole.
    """
    kept = []
    for part in schedule.steps(spectrum.shape[2]):
        block, lookahead = step(spectrum[:, :, part.block], spectrum[:, :, part.lookahead])
        kept += [block, lookahead] if part.last else [block]
    return kept


def network_step(net):
    """A network's step that keeps its states to itself, as an engine's does."""
    states = net.start()

    def step(block, lookahead):
        nonlocal states
        block, lookahead, states = net.step(block, lookahead, states)
        return block, lookahead

    return step
