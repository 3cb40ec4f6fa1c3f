"""A stream's steps: forward scans cover the whole past, backward scans start at the lookahead."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from bsmamba2.audio.schedule import Schedule
from bsmamba2_network import BSMamba2, Config, model
from bsmamba2_network.model import Direction, State
from bsmamba2_network.scan import recurrence, scan
from support.streams import network_step, run_steps

FRAMES = st.integers(1, 8)


def noise(frames: int, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(2, 2, frames, 17, 2, generator=random, dtype=torch.float64)


@pytest.fixture(scope="module")
def net(micro_config: Config) -> Iterator[BSMamba2]:
    """A network in float64 whose scans use the plain recurrence."""
    with torch.random.fork_rng(), pytest.MonkeyPatch.context() as patch:
        torch.manual_seed(0)
        patch.setattr(model, "mamba2_scan", partial(scan, state_space=recurrence))
        yield BSMamba2(micro_config).double().requires_grad_(False)


def stream(net: BSMamba2, spectrum: Tensor, schedule: Schedule) -> Tensor:
    return torch.cat(run_steps(network_step(net), spectrum, schedule), dim=3)


def forward_without_cut(
    self: Direction, x: Tensor, start: State, cut: int | None = None, needs_state: bool = True
) -> tuple[Tensor, State]:
    """Runs a direction as defined: one scan of the whole sequence, and one up to the cut."""
    y, end = self.mixer(self.norm(x), start, self.reverse)
    if cut is not None:
        _, end = self.mixer(self.norm(x[:, :cut]), start, self.reverse)
    return x + y, end


@pytest.mark.parametrize(("block", "lookahead"), [(1, 1), (4, 3), (2, 7)])
def test_the_forward_scan_does_not_depend_on_the_cut(
    net: BSMamba2, monkeypatch: pytest.MonkeyPatch, block: int, lookahead: int
) -> None:
    schedule = Schedule(block, lookahead)
    actual = stream(net, noise(11), schedule)
    monkeypatch.setattr(Direction, "forward", forward_without_cut)
    torch.testing.assert_close(actual, stream(net, noise(11), schedule))


@settings(max_examples=20)
@given(blocks=st.lists(FRAMES, min_size=1, max_size=5))
@example(blocks=[1])
@example(blocks=[1, 1])
def test_steps_that_look_ahead_to_the_end_equal_the_whole(net: BSMamba2, blocks: list[int]) -> None:
    spectrum, step, start = noise(sum(blocks)), network_step(net), 0
    parts: list[Tensor] = []
    for frames in blocks[:-1]:
        cut = start + frames
        parts.append(step(spectrum[:, :, start:cut], spectrum[:, :, cut:])[0])
        start = cut
    parts += step(spectrum[:, :, start:-1], spectrum[:, :, -1:])
    torch.testing.assert_close(torch.cat(parts, 3), net.separate_spectrum(spectrum))


def test_a_stream_of_one_step_equals_the_whole(net: BSMamba2) -> None:
    for frames in (1, 2, 8):
        whole = net.separate_spectrum(noise(frames))
        torch.testing.assert_close(stream(net, noise(frames), Schedule(4, 5)), whole)


def test_a_block_does_not_depend_on_frames_after_its_lookahead(net: BSMamba2) -> None:
    changed = torch.cat([noise(20)[:, :, :9], noise(11, seed=1)], dim=2)
    one, other = (stream(net, s, Schedule(3, 2)) for s in (noise(20), changed))
    assert torch.equal(one[:, :, :, :6], other[:, :, :, :6])
    assert not torch.equal(one[:, :, :, 6:9], other[:, :, :, 6:9])


def test_the_states_size_does_not_grow(net: BSMamba2) -> None:
    states, shapes = net.start(), []
    for _ in range(3):
        *_, states = net.step(noise(4), noise(2), states)
        shapes.append([tuple(state.shape) for pair in states for state in pair])
    assert shapes == 3 * [2 * [(4, 80, 3), (4, 8, 8, 8)]]
