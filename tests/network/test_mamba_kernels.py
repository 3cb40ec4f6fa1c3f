"""mamba_ssm's kernels are called as their source documents, and give our scan.

Its functions are stood in for by what they are documented to compute, with their conditions on
types, shapes and strides. The last tests run the real ones, where they and a GPU are.
"""

from __future__ import annotations

import sys
import types

import pytest
import torch
from torch.nn.functional import silu, softplus

from bsmamba2_network import BSMamba2, mamba_kernels
from bsmamba2_network.scan import mamba2_scan, recurrence, scan


def chunk_scan(
    x, dt, A, B, C, chunk_size, D=None, z=None, dt_bias=None, initial_states=None, seq_idx=None,
    cu_seqlens=None, dt_softplus=False, dt_limit=(0.0, float("inf")), return_final_states=False,
):  # fmt: skip
    """mamba_chunk_scan_combined: x (b, l, h, p), dt (b, l, h), B and C (b, l, groups, n)."""
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


def gated_norm(x, weight, bias, z=None, eps=1e-6, group_size=None, norm_before_gate=True):
    """rmsnorm_fn, with the gate before the norm."""
    assert (bias, group_size, norm_before_gate) == (None, None, False)
    assert x.shape == z.shape
    gated = x.float() * silu(z.float())
    return (
        gated * torch.rsqrt(gated.square().mean(-1, keepdim=True) + eps) * weight.float()
    ).to(x.dtype)  # fmt: skip


def convolve(x, weight, bias=None, seq_idx=None, activation=None):
    """causal_conv1d_fn: x (b, channels, l), weight (channels, width), channels last."""
    assert activation == "silu"
    assert x.stride(1) == 1
    assert all(size % 8 == 0 for size in (x.shape[1], x.stride(0), x.stride(2)))
    assert weight.shape == (x.shape[1], 4)
    assert weight.dtype == bias.dtype
    steps = torch.nn.functional.pad(x.float(), (3, 0)).unfold(-1, 4, 1)
    return silu((steps * weight.float()[:, None]).sum(-1) + bias.float()[:, None]).to(x.dtype)


@pytest.fixture(params=["causal_conv1d", "no causal_conv1d"])
def stand_in(monkeypatch, request):
    """Their packages, with the functions above."""
    names = {
        "mamba_ssm": {},
        "mamba_ssm.ops": {},
        "mamba_ssm.ops.triton": {},
        "mamba_ssm.ops.triton.ssd_combined": {"mamba_chunk_scan_combined": chunk_scan},
        "mamba_ssm.ops.triton.layernorm_gated": {"rmsnorm_fn": gated_norm},
        "causal_conv1d": {"causal_conv1d_fn": convolve},
    }
    for name, functions in names.items():
        module = types.ModuleType(name)
        vars(module).update(functions)
        monkeypatch.setitem(sys.modules, name, module)
    if request.param == "no causal_conv1d":
        monkeypatch.setitem(sys.modules, "causal_conv1d", None)
    monkeypatch.setattr(mamba_kernels, "supports", lambda *call: True)
    mamba_kernels.installed.cache_clear()
    yield
    mamba_kernels.installed.cache_clear()


def call(batch=2, length=70, own_state=True, reverse=False, device="cpu", dtype=torch.float32):
    """A scan's arguments: 2 heads of 16, 8 states, 48 channels in the convolution."""
    draw = torch.Generator().manual_seed(length)
    kept = batch if own_state else 1
    shapes = [
        (batch, length, 82), (48, 1, 4), (48,), (2,), (2,), (2,), (32,), (kept, 48, 3),
        (kept, 2, 16, 8),
    ]  # fmt: skip
    tensors = [torch.randn(shape, generator=draw).to(device) for shape in shapes]
    # Types are rounded before, so that both ways start from the same numbers.
    rounded = (0, 7)
    tensors = [v.to(dtype).to(v.dtype) if i in rounded else v for i, v in enumerate(tensors)]
    tensors[0] = tensors[0].to(dtype)
    return [*tensors, 16, 8, reverse, 1e-5]


def close(found, wanted, tolerance):
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("length", [1, 2, 64, 65, 130])
@pytest.mark.parametrize("own_state", [True, False])
@pytest.mark.parametrize("reverse", [True, False])
def test_their_kernels_give_our_scan(stand_in, length, own_state, reverse):
    given = call(length=length, own_state=own_state, reverse=reverse)
    close(mamba2_scan(*given), scan(*given), 2e-5)


def test_states_stay_float32_in_bfloat16(stand_in):
    given = call(dtype=torch.bfloat16)
    y, conv_state, ssm_state = mamba2_scan(*given)
    wanted = scan(*given)
    assert y.dtype == torch.bfloat16
    assert conv_state.equal(wanted[1])
    close([ssm_state], wanted[2:], 0.1)


def test_steps_with_the_state_handed_over_are_the_whole(stand_in):
    given = call(length=90)
    first, *states = mamba2_scan(given[0][:, :37], *given[1:])
    second, *states = mamba2_scan(given[0][:, 37:], *given[1:7], *states, *given[9:])
    close([torch.cat([first, second], 1), *states], mamba2_scan(*given), 2e-5)


def gradients(run, given, outputs):
    """Of all tensors, from a random weighting of these outputs."""
    inputs = [v.clone().requires_grad_() for v in given[:9]]
    got = run(*inputs, *given[9:])
    draw = torch.Generator().manual_seed(1)
    weights = [torch.randn(v.shape, generator=draw).to(v) for v in got]
    sum((got[i] * weights[i]).sum() for i in outputs).backward()
    return [v.grad for v in inputs]


@pytest.mark.parametrize("outputs", [(0,), (0, 1, 2)])
@pytest.mark.parametrize("reverse", [True, False])
def test_their_gradient_is_that_of_our_scan(stand_in, outputs, reverse):
    given = call(length=40, own_state=True, reverse=reverse)
    close(gradients(mamba2_scan, given, outputs), gradients(scan, given, outputs), 1e-4)


def test_a_network_trains_through_them(stand_in, micro_config):
    torch.manual_seed(0)
    net = BSMamba2(micro_config)
    net(torch.randn(1, 2, 200)).square().sum().backward()
    ours = {name: p.grad.clone() for name, p in net.named_parameters()}
    net.zero_grad()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mamba_kernels, "supports", lambda *call: False)
        torch.manual_seed(0)
        net = BSMamba2(micro_config)
        net(torch.randn(1, 2, 200)).square().sum().backward()
    for name, p in net.named_parameters():
        torch.testing.assert_close(ours[name], p.grad, rtol=1e-3, atol=1e-4)


def test_a_call_on_the_cpu_is_not_for_them():
    assert not mamba_kernels.supports(*call())


@pytest.fixture
def gpu():
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    if mamba_kernels.installed() is None:
        pytest.skip("mamba_ssm is not installed")


@pytest.mark.parametrize("reverse", [True, False])
def test_on_a_gpu_the_real_ones_give_our_scan(gpu, reverse):
    given = call(length=200, reverse=reverse, device="cuda", dtype=torch.bfloat16)
    assert mamba_kernels.supports(*given)
    assert not mamba_kernels.supports(given[0].float(), *given[1:])  # TF32 is not allowed
    for found, wanted in zip(mamba2_scan(*given), scan(*given), strict=True):
        error = (found.float() - wanted.float()).norm() / wanted.float().norm()
        assert error < 0.02


def test_on_a_gpu_their_gradient_is_that_of_our_scan(gpu):
    given = call(length=200, device="cuda", dtype=torch.bfloat16)
    outputs = (0, 1, 2)
    ours, theirs = (gradients(run, given, outputs) for run in (scan, mamba2_scan))
    for found, wanted in zip(theirs, ours, strict=True):
        assert (found.float() - wanted.float()).norm() / wanted.float().norm() < 0.05
