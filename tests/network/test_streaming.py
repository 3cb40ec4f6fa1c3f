"""A stream's steps: the forward scans are whole, the backward ones see as far as the lookahead."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bsmamba2.audio.schedule import Schedule
from bsmamba2_network import BSMamba2, model
from bsmamba2_network.model import Direction
from bsmamba2_network.scan import recurrence, scan
from support.streams import network_step, run_steps

FRAMES = st.integers(1, 8)


def noise(frames, seed=0):
    random = torch.Generator().manual_seed(seed)
    return torch.randn(2, 2, frames, 17, 2, generator=random, dtype=torch.float64)


@pytest.fixture(scope="module")
def net(micro_config):
    """In float64, its scans by the plain recurrence."""
    with torch.random.fork_rng(), pytest.MonkeyPatch.context() as patch:
        torch.manual_seed(0)
        patch.setattr(model, "mamba2_scan", partial(scan, state_space=recurrence))
        yield BSMamba2(micro_config).double().requires_grad_(False)


def stream(net, spectrum, schedule):
    return torch.cat(run_steps(network_step(net), spectrum, schedule), dim=3)


def without_a_cut(self, x, start, cut=None):
    """A direction as its definition says: one scan of it all, and one up to the cut."""
    y, end = self.mixer(self.norm(x), start, self.reverse)
    if cut is not None:
        _, end = self.mixer(self.norm(x[:, :cut]), start, self.reverse)
    return x + y, end


@pytest.mark.parametrize(("block", "lookahead"), [(1, 1), (4, 3), (2, 7)])
def test_the_forward_scan_does_not_hear_the_cut(net, monkeypatch, block, lookahead):
    schedule = Schedule(block, lookahead)
    found = stream(net, noise(11), schedule)
    monkeypatch.setattr(Direction, "forward", without_a_cut)
    torch.testing.assert_close(found, stream(net, noise(11), schedule))


@settings(max_examples=20)
@given(blocks=st.lists(FRAMES, min_size=1, max_size=5))
@example(blocks=[1])
@example(blocks=[1, 1])
def test_a_lookahead_that_covers_the_rest_makes_the_whole(net, blocks):
    spectrum, step, start, found = noise(sum(blocks)), network_step(net), 0, []
    for frames in blocks[:-1]:
        cut = start + frames
        found.append(step(spectrum[:, :, start:cut], spectrum[:, :, cut:])[0])
        start = cut
    found += step(spectrum[:, :, start:-1], spectrum[:, :, -1:])
    torch.testing.assert_close(torch.cat(found, 3), net.separate_spectrum(spectrum))


def test_a_stream_that_ends_within_its_first_step_is_the_whole(net):
    for frames in (1, 2, 8):
        whole = net.separate_spectrum(noise(frames))
        torch.testing.assert_close(stream(net, noise(frames), Schedule(4, 5)), whole)


def test_a_block_does_not_depend_on_what_lies_beyond_its_lookahead(net):
    changed = torch.cat([noise(20)[:, :, :9], noise(11, seed=1)], dim=2)
    one, other = (stream(net, s, Schedule(3, 2)) for s in (noise(20), changed))
    assert torch.equal(one[:, :, :, :6], other[:, :, :, :6])
    assert not torch.equal(one[:, :, :, 6:9], other[:, :, :, 6:9])


def test_states_have_one_size_for_ever(net):
    states, shapes = net.start(), []
    for _ in range(3):
        *_, states = net.step(noise(4), noise(2), states)
        shapes.append([tuple(state.shape) for pair in states for state in pair])
    assert shapes == 3 * [2 * [(4, 80, 3), (4, 8, 8, 8)]]
