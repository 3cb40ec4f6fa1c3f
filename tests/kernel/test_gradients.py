"""The kernel's gradients, for training on a CPU, against those of the plain body in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bsmamba2.devices import kernel
from bsmamba2_network import mamba2_scan, native
from bsmamba2_network.scan import scan

pytestmark = pytest.mark.skipif(kernel.library() is None, reason="the kernel is not built here")

NAMES = [
    "zxbcdt", "conv_weight", "conv_bias", "dt_bias", "A_log", "D", "norm_weight",
    "conv_state", "ssm_state",
]  # fmt: skip


def inputs(batch, length, heads, state, taps, shared, seed=0):
    """The nine tensors of a call, every head of 64 features, every state at work."""
    torch.manual_seed(seed)
    inner, states = 64 * heads, 1 if shared else batch
    channels = inner + 2 * state
    return [
        torch.randn(batch, length, inner + channels + heads),
        torch.randn(channels, 1, taps) / 2,
        torch.randn(channels),
        torch.randn(heads) - 2,
        torch.randn(heads) + 1,
        torch.randn(heads),
        torch.randn(inner),
        torch.randn(states, channels, taps - 1),
        torch.randn(states, heads, 64, state),
    ]


def gradients(tensors, operator, reverse, outputs=3, dtype=torch.float32):
    """Of a random sum of the outputs, by each input that has one."""
    tensors = [v.to(dtype).requires_grad_() for v in tensors]
    found = operator(*tensors, 64, tensors[8].shape[3], reverse, 1e-5)[:outputs]
    torch.manual_seed(1)
    total = sum((torch.randn(v.shape).to(dtype) * v).sum() for v in found)
    return dict(zip(NAMES, torch.autograd.grad(total, tensors, allow_unused=True), strict=True))


def by_kernel(tensors, reverse, outputs=3):
    with native.training():
        return gradients(tensors, mamba2_scan, reverse, outputs)


def assert_as_exact_as_the_plain_body(found, tensors, reverse, outputs):
    """Within 1e-5, and four times what the plain body loses of the same gradient in float32: a sum
    over many tokens may cancel, such as D's, and is then as uncertain in any order of its terms."""
    wanted = gradients(tensors, scan, reverse, outputs, torch.float64)
    lost = errors(gradients(tensors, scan, reverse, outputs), wanted)
    for name, error in errors(found, wanted).items():
        assert error < 1e-5 + 4 * lost[name], name


def errors(found, wanted):
    """Each gradient's largest error, of its largest value, or of 1 where that is smaller."""
    size = {name: float(wanted[name].abs().max().clamp_min(1)) for name in NAMES}
    return {name: float((found[name] - wanted[name]).abs().max()) / size[name] for name in NAMES}


@settings(max_examples=20, deadline=None)
@given(
    batch=st.integers(1, 20),
    length=st.sampled_from([1, 2, 3, 26, 63, 64, 65, 129, 200]),
    heads=st.integers(1, 4),
    state=st.sampled_from([64, 128]),
    taps=st.integers(2, 4),
    shared=st.booleans(),
    reverse=st.booleans(),
    outputs=st.sampled_from([1, 3]),
)
def test_gradients_are_those_of_the_plain_body(
    batch, length, heads, state, taps, shared, reverse, outputs
):
    tensors = inputs(batch, length, heads, state, taps, shared)
    found = by_kernel(tensors, reverse, outputs)
    assert_as_exact_as_the_plain_body(found, tensors, reverse, outputs)


def test_a_scan_from_zero_takes_the_short_way_to_the_same_gradients():
    tensors = inputs(3, 70, 2, 64, 4, shared=True)
    tensors[8].zero_()
    assert_as_exact_as_the_plain_body(by_kernel(tensors, False, 1), tensors, False, 1)


def test_an_instruction_set_asked_for_too_late_changes_nothing(monkeypatch):
    tensors = inputs(1, 5, 1, 64, 4, shared=True)
    before = by_kernel(tensors, False)
    monkeypatch.setenv("BSMAMBA2_ISA", "mmx")
    after = by_kernel(tensors, False)
    assert all(torch.equal(before[name], after[name]) for name in NAMES)


def test_gradients_have_the_same_bits_on_every_number_of_threads(restore_threads):
    tensors = inputs(20, 65, 2, 64, 4, shared=False)
    found = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        found.append(by_kernel(tensors, True))
    assert all(torch.equal(found[0][name], found[1][name]) for name in NAMES)


@pytest.fixture
def restore_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_without_being_asked_for_the_plain_body_runs(monkeypatch):
    monkeypatch.setattr(native, "_call", lambda *_: pytest.fail("the kernel was called"))
    gradients(inputs(1, 3, 1, 64, 4, shared=True), mamba2_scan, False)


@pytest.mark.parametrize("change", ["a narrow state", "float64", "no steps"])
def test_what_the_kernel_does_not_take_goes_the_plain_way(change, monkeypatch):
    monkeypatch.setattr(native, "_call", lambda *_: pytest.fail("the kernel was called"))
    length, state = 0 if change == "no steps" else 3, 16 if change == "a narrow state" else 64
    dtype = torch.float64 if change == "float64" else torch.float32
    tensors = inputs(1, length, 1, state, 4, shared=True)
    with native.training():
        gradients(tensors, mamba2_scan, False, dtype=dtype)
