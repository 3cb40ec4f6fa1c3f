"""Training on a CPU computes the same network in fewer passes: results and gradients are equal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from bsmamba2.devices import kernel
from bsmamba2_network import BSMamba2, Config, fused, native

pytestmark = pytest.mark.skipif(kernel.library() is None, reason="the kernels are not installed")

SIZES = Config(n_fft=256, hop=64, bands=(5, 12, 112), dim=16, depth=2, expand=8, state_size=64)
FRAMES = 70


def whole(net: BSMamba2, mixture: Tensor) -> Tensor:
    return net.separate_spectrum(mixture)


def stream(net: BSMamba2, mixture: Tensor) -> Tensor:
    """Separates in three steps, of which the last has a lookahead of one frame."""
    states, parts = net.start(), []
    for first, cut, end in ((0, 20, 30), (20, 40, 55), (40, FRAMES - 1, FRAMES)):
        block, ahead, states = net.step(mixture[:, :, first:cut], mixture[:, :, cut:end], states)
        parts.append(block)
    return torch.cat([*parts, ahead], dim=3)


def results(separate: Callable[[BSMamba2, Tensor], Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Returns the output and the gradients of all weights, for a random sum of the output."""
    torch.manual_seed(0)
    net = BSMamba2(SIZES).to(dtype)
    mixture = torch.randn(2, 2, FRAMES, SIZES.bins, 2).to(dtype)
    output = separate(net, mixture)
    weights = torch.randn(output.shape).to(dtype)
    return [output, *torch.autograd.grad((weights * output).sum(), list(net.parameters()))]


@pytest.mark.parametrize("separate", [whole, stream])
def test_output_and_every_gradient_equal_those_of_the_plain_network(
    separate: Callable[[BSMamba2, Tensor], Tensor],
) -> None:
    expected = results(separate, torch.float64)
    with native.training():
        got = results(separate, torch.float32)
    for ours, exact in zip(got, expected, strict=True):
        assert (ours - exact).norm() < 2e-4 * exact.norm()


@pytest.mark.parametrize("separate", [whole, stream])
def test_training_on_a_cpu_runs_the_fused_parts(
    separate: Callable[[BSMamba2, Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []

    def record(name: str) -> None:
        part = getattr(fused, name)

        def recorded(*arguments: Any, **options: Any) -> Any:
            called.append(name)
            return part(*arguments, **options)

        monkeypatch.setattr(fused, name, recorded)

    for name in ("direction", "join", "apply_masks"):
        record(name)
    with native.training():
        results(separate, torch.float32)
    assert set(called) == {"direction", "join", "apply_masks"}


def test_outside_training_and_under_autocast_the_plain_network_runs() -> None:
    x = torch.zeros(1, 2, 16)
    assert not fused.supports(x, 64, 64)
    with native.training():
        assert fused.supports(x, 64, 64)
        assert not fused.supports(x, 64, 16)
        assert not fused.supports(x.double(), 64, 64)
        with torch.autocast("cpu", torch.bfloat16):
            assert not fused.supports(x, 64, 64)
