"""The kernel's gradients, for training on a CPU, match those of the plain body in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bsmamba2.devices import kernel
from bsmamba2_network import mamba2_scan, native
from bsmamba2_network.scan import scan

pytestmark = pytest.mark.skipif(kernel.library() is None, reason="the kernels are not installed")

NAMES = [
    "zxbcdt", "conv_weight", "conv_bias", "dt_bias", "A_log", "D", "norm_weight",
    "conv_state", "ssm_state",
]  # fmt: skip


Gradients: TypeAlias = dict[str, Tensor]


def inputs(
    batch: int, length: int, heads: int, state: int, taps: int, *, shared: bool, seed: int = 0
) -> list[Tensor]:
    """Returns the nine tensors of a call, with heads of 64 features and nonzero states."""
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


def gradients(
    tensors: list[Tensor],
    operator: Callable[..., Any],
    reverse: bool,
    outputs: int = 3,
    dtype: torch.dtype = torch.float32,
) -> Gradients:
    """Returns the gradients of a random weighted sum of the outputs."""
    tensors = [v.to(dtype).requires_grad_() for v in tensors]
    results = operator(*tensors, 64, tensors[8].shape[3], reverse, 1e-5)[:outputs]
    torch.manual_seed(1)
    total = sum((torch.randn(v.shape).to(dtype) * v).sum() for v in results)
    return dict(zip(NAMES, torch.autograd.grad(total, tensors, allow_unused=True), strict=True))


def kernel_gradients(tensors: list[Tensor], reverse: bool, outputs: int = 3) -> Gradients:
    with native.training():
        return gradients(tensors, mamba2_scan, reverse, outputs)


def assert_as_exact_as_the_plain_body(
    got: Gradients, tensors: list[Tensor], reverse: bool, outputs: int
) -> None:
    """Allows an error of 1e-5 plus four times what float32 loses of the same gradient.

    A sum over many tokens, such as D's gradient, may cancel. Then it is inexact in any order of its
    terms. One order may still be exact by chance, so the loss is the larger of two: the error of
    the plain body in float32, and the change if the inputs are rounded to float32 once more.
    """
    expected = gradients(tensors, scan, reverse, outputs, torch.float64)
    plain = errors(gradients(tensors, scan, reverse, outputs), expected)
    rounded = [
        errors(
            gradients(rounded_inputs(tensors, seed), scan, reverse, outputs, torch.float64),
            expected,
        )
        for seed in range(2)
    ]
    for name, error in errors(got, expected).items():
        loss = max(losses[name] for losses in (plain, *rounded))
        assert error < 1e-5 + 4 * loss, name


def rounded_inputs(tensors: list[Tensor], seed: int) -> list[Tensor]:
    """Returns the tensors in float64, each off by up to half a unit in float32's last place."""
    generator = torch.Generator().manual_seed(seed)
    factors = (torch.rand(v.shape, generator=generator, dtype=torch.float64) for v in tensors)
    values = (v.detach().double() for v in tensors)
    return [v * (1 + (2 * f - 1) * 2.0**-24) for v, f in zip(values, factors, strict=True)]


def errors(got: Gradients, expected: Gradients) -> dict[str, float]:
    """Returns each gradient's largest error, relative to its largest value or to 1 if larger."""
    size = {name: float(expected[name].abs().max().clamp_min(1)) for name in NAMES}
    return {name: float((got[name] - expected[name]).abs().max()) / size[name] for name in NAMES}


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
def test_gradients_match_those_of_the_plain_body(
    batch: int,
    length: int,
    heads: int,
    state: int,
    taps: int,
    shared: bool,
    reverse: bool,
    outputs: int,
) -> None:
    tensors = inputs(batch, length, heads, state, taps, shared=shared)
    got = kernel_gradients(tensors, reverse, outputs)
    assert_as_exact_as_the_plain_body(got, tensors, reverse, outputs)


def test_a_scan_from_a_zero_state_has_the_same_gradients() -> None:
    tensors = inputs(3, 70, 2, 64, 4, shared=True)
    tensors[8].zero_()
    assert_as_exact_as_the_plain_body(kernel_gradients(tensors, False, 1), tensors, False, 1)


def test_setting_the_instruction_set_after_the_first_call_has_no_effect(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tensors = inputs(1, 5, 1, 64, 4, shared=True)
    before = kernel_gradients(tensors, False)
    monkeypatch.setenv("BSMAMBA2_ISA", "mmx")
    after = kernel_gradients(tensors, False)
    assert all(torch.equal(before[name], after[name]) for name in NAMES)


@pytest.mark.usefixtures("restore_threads")
def test_gradients_have_the_same_bits_for_any_number_of_threads() -> None:
    tensors = inputs(20, 65, 2, 64, 4, shared=False)
    results = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        results.append(kernel_gradients(tensors, True))
    assert all(torch.equal(results[0][name], results[1][name]) for name in NAMES)


@pytest.fixture
def restore_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_outside_training_the_plain_body_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_call", lambda *_: pytest.fail("the kernel was called"))
    gradients(inputs(1, 3, 1, 64, 4, shared=True), mamba2_scan, False)


@pytest.mark.parametrize("change", ["a narrow state", "float64", "no steps"])
def test_calls_that_the_kernel_does_not_support_run_the_plain_body(
    change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "_call", lambda *_: pytest.fail("the kernel was called"))
    length, state = 0 if change == "no steps" else 3, 16 if change == "a narrow state" else 64
    dtype = torch.float64 if change == "float64" else torch.float32
    tensors = inputs(1, length, 1, state, 4, shared=True)
    with native.training():
        gradients(tensors, mamba2_scan, False, dtype=dtype)
