"""mamba_ssm's kernels are called as documented in their source, and agree with our scan.

Most tests use mock kernels, which compute what the real ones are documented to compute and check
their conditions on types, shapes and strides. The last tests run the real kernels on a GPU.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import silu, softplus

from bsmamba2_network import BSMamba2, Config, mamba_kernels
from bsmamba2_network.scan import mamba2_scan, recurrence, scan


def chunk_scan(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, chunk_size: int,
    D: Tensor | None = None, z: Tensor | None = None, dt_bias: Tensor | None = None,
    initial_states: Tensor | None = None, seq_idx: Tensor | None = None,
    cu_seqlens: Tensor | None = None, dt_softplus: bool = False,
    dt_limit: tuple[float, float] = (0.0, float("inf")), return_final_states: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """mamba_chunk_scan_combined: x (b, l, h, p), dt (b, l, h), B and C (b, l, groups, n)."""
    assert D is not None
    assert dt_bias is not None
    assert initial_states is not None
    batch, length, heads, head_dim = x.shape
    groups, states = B.shape[2:]
    assert dt.shape == (batch, length, heads)
    assert B.shape == C.shape == (batch, length, groups, states)
    assert A.shape == D.shape == dt_bias.shape == (heads,)
    assert (groups, z, dt_softplus, return_final_states) == (1, None, True, True)
    assert initial_states.shape == (batch, heads, head_dim, states)
    assert chunk_size in (64, 128, 256)
    delta = softplus(dt.float() + dt_bias)
    y, final = recurrence(
        x * delta[..., None], delta * A, B[:, :, 0].float(), C[:, :, 0].float(), initial_states
    )
    return (y + D[:, None] * x).to(x.dtype), final


def gated_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    z: Tensor | None = None,
    eps: float = 1e-6,
    group_size: int | None = None,
    norm_before_gate: bool = True,
) -> Tensor:
    """rmsnorm_fn, with the gate before the norm."""
    assert z is not None
    assert (bias, group_size, norm_before_gate) == (None, None, False)
    assert x.shape == z.shape
    gated = x.float() * silu(z.float())
    return (
        gated * torch.rsqrt(gated.square().mean(-1, keepdim=True) + eps) * weight.float()
    ).to(x.dtype)  # fmt: skip


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    seq_idx: Tensor | None = None,
    activation: str | None = None,
) -> Tensor:
    """causal_conv1d_fn: x (b, channels, l), weight (channels, width), channels last."""
    assert bias is not None
    assert activation == "silu"
    assert x.stride(1) == 1
    assert all(size % 8 == 0 for size in (x.shape[1], x.stride(0), x.stride(2)))
    assert weight.shape == (x.shape[1], 4)
    assert weight.dtype == bias.dtype
    steps = torch.nn.functional.pad(x.float(), (3, 0)).unfold(-1, 4, 1)
    return silu((steps * weight.float()[:, None]).sum(-1) + bias.float()[:, None]).to(x.dtype)


@pytest.fixture(params=["causal_conv1d", "no causal_conv1d"])
def mock_kernels(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[None]:
    """Mocks the packages with the functions above."""
    packages: dict[str, dict[str, Callable[..., Any]]] = {
        "mamba_ssm": {},
        "mamba_ssm.ops": {},
        "mamba_ssm.ops.triton": {},
        "mamba_ssm.ops.triton.ssd_combined": {"mamba_chunk_scan_combined": chunk_scan},
        "mamba_ssm.ops.triton.layernorm_gated": {"rmsnorm_fn": gated_norm},
        "causal_conv1d": {"causal_conv1d_fn": convolve},
    }
    for name, functions in packages.items():
        module = types.ModuleType(name)
        vars(module).update(functions)
        monkeypatch.setitem(sys.modules, name, module)
    if request.param == "no causal_conv1d":
        monkeypatch.setitem(sys.modules, "causal_conv1d", None)
    monkeypatch.setattr(mamba_kernels, "supports", lambda *call: True)
    mamba_kernels.installed.cache_clear()
    yield
    mamba_kernels.installed.cache_clear()


def arguments(
    batch: int = 2,
    length: int = 70,
    own_state: bool = True,
    reverse: bool = False,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> list[Any]:
    """A scan's arguments: 2 heads of 16, 8 states, 48 channels in the convolution."""
    random = torch.Generator().manual_seed(length)
    rows = batch if own_state else 1
    shapes = [
        (batch, length, 82), (48, 1, 4), (48,), (2,), (2,), (2,), (32,), (rows, 48, 3),
        (rows, 2, 16, 8),
    ]  # fmt: skip
    tensors = [torch.randn(shape, generator=random).to(device) for shape in shapes]
    # Rounding first makes both scans start from the same numbers.
    rounded = (0, 7)
    tensors = [v.to(dtype).to(v.dtype) if i in rounded else v for i, v in enumerate(tensors)]
    tensors[0] = tensors[0].to(dtype)
    return [*tensors, 16, 8, reverse, 1e-5]


def assert_close(actual: Iterable[Tensor], expected: Iterable[Tensor], tolerance: float) -> None:
    for one, other in zip(actual, expected, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("length", [1, 2, 64, 65, 130])
@pytest.mark.parametrize("own_state", [True, False])
@pytest.mark.parametrize("reverse", [True, False])
@pytest.mark.usefixtures("mock_kernels")
def test_the_kernels_agree_with_our_scan(length: int, own_state: bool, reverse: bool) -> None:
    args = arguments(length=length, own_state=own_state, reverse=reverse)
    assert_close(mamba2_scan(*args), scan(*args), 2e-5)


@pytest.mark.usefixtures("mock_kernels")
def test_states_stay_float32_in_bfloat16() -> None:
    args = arguments(dtype=torch.bfloat16)
    y, conv_state, ssm_state = mamba2_scan(*args)
    expected = scan(*args)
    assert y.dtype == torch.bfloat16
    assert conv_state.equal(expected[1])
    assert_close([ssm_state], expected[2:], 0.1)


@pytest.mark.usefixtures("mock_kernels")
def test_two_parts_with_the_state_passed_on_equal_the_whole() -> None:
    args = arguments(length=90)
    first, *states = mamba2_scan(args[0][:, :37], *args[1:])
    second, *states = mamba2_scan(args[0][:, 37:], *args[1:7], *states, *args[9:])
    assert_close([torch.cat([first, second], 1), *states], mamba2_scan(*args), 2e-5)


def gradients(
    run: Callable[..., tuple[Tensor, ...]], args: Sequence[Any], outputs: Sequence[int]
) -> list[Tensor]:
    """Returns the gradients of a random weighting of these outputs, for all tensors."""
    inputs = [v.clone().requires_grad_() for v in args[:9]]
    results = run(*inputs, *args[9:])
    random = torch.Generator().manual_seed(1)
    weights = [torch.randn(v.shape, generator=random).to(v) for v in results]
    torch.stack([(results[i] * weights[i]).sum() for i in outputs]).sum().backward()
    return [v.grad for v in inputs]


@pytest.mark.parametrize("outputs", [(0,), (0, 1, 2)])
@pytest.mark.parametrize("reverse", [True, False])
@pytest.mark.usefixtures("mock_kernels")
def test_the_kernels_gradients_agree_with_our_scan(outputs: tuple[int, ...], reverse: bool) -> None:
    args = arguments(length=40, own_state=True, reverse=reverse)
    assert_close(gradients(mamba2_scan, args, outputs), gradients(scan, args, outputs), 1e-4)


def network_gradients(config: Config) -> dict[str, Tensor]:
    """Returns the gradients of a network's parameters, with fixed weights and input."""
    torch.manual_seed(0)
    net = BSMamba2(config)
    net(torch.randn(1, 2, 200)).square().sum().backward()
    return {name: p.grad for name, p in net.named_parameters() if p.grad is not None}


@pytest.mark.usefixtures("mock_kernels")
def test_a_network_trains_with_the_kernels(micro_config: Config) -> None:
    actual = network_gradients(micro_config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mamba_kernels, "supports", lambda *call: False)
        expected = network_gradients(micro_config)
    assert (
        actual.keys() == expected.keys() == dict(BSMamba2(micro_config).named_parameters()).keys()
    )
    for name, gradient in expected.items():
        torch.testing.assert_close(actual[name], gradient, rtol=1e-3, atol=1e-4)


def test_the_kernels_do_not_support_a_call_on_the_cpu() -> None:
    assert not mamba_kernels.supports(*arguments())


@pytest.fixture
def gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    if mamba_kernels.installed() is None:
        pytest.skip("mamba_ssm is not installed")


@pytest.mark.parametrize("reverse", [True, False])
@pytest.mark.usefixtures("gpu")
def test_the_real_kernels_agree_with_our_scan_on_a_gpu(reverse: bool) -> None:
    args = arguments(length=200, reverse=reverse, device="cuda", dtype=torch.bfloat16)
    assert mamba_kernels.supports(*args)
    assert not mamba_kernels.supports(args[0].float(), *args[1:])  # TF32 is not allowed
    for actual, expected in zip(mamba2_scan(*args), scan(*args), strict=True):
        error = (actual.float() - expected.float()).norm() / expected.float().norm()
        assert error < 0.02


@pytest.mark.usefixtures("gpu")
def test_the_real_kernels_gradients_agree_with_our_scan_on_a_gpu() -> None:
    args = arguments(length=200, device="cuda", dtype=torch.bfloat16)
    outputs = (0, 1, 2)
    ours, theirs = (gradients(run, args, outputs) for run in (scan, mamba2_scan))
    for actual, expected in zip(theirs, ours, strict=True):
        assert (actual.float() - expected.float()).norm() / expected.float().norm() < 0.05
