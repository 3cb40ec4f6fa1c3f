"""All forms of the scan agree, and a step depends on the past only through the states."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bsmamba2_network.scan import mamba2_scan, recurrence, scan

SIZES = st.fixed_dictionaries(
    {
        "batch": st.integers(1, 3),
        "length": st.integers(0, 150),
        "heads": st.integers(1, 3),
        "head_dim": st.sampled_from([1, 4, 8]),
        "state_size": st.sampled_from([1, 5, 16]),
        "reverse": st.booleans(),
        "seed": st.integers(0, 2**16),
    }
)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """The tensors are so small that more threads are slower."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def arguments(
    batch: int = 2,
    length: int = 70,
    heads: int = 2,
    head_dim: int = 4,
    state_size: int = 8,
    reverse: bool = False,
    seed: int = 0,
) -> list[Any]:
    """A scan's arguments in float64, states included."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    d_inner = heads * head_dim
    channels = d_inner + 2 * state_size
    tensors = [
        normal(batch, length, 2 * d_inner + 2 * state_size + heads),
        normal(channels, 1, 4),
        normal(channels),
        normal(heads),
        normal(heads),
        normal(heads),
        normal(d_inner),
        normal(batch, channels, 3),
        normal(batch, heads, head_dim, state_size),
    ]
    return [*tensors, head_dim, state_size, reverse, 1e-5]


def assert_close(
    actual: Iterable[Tensor], expected: Iterable[Tensor], tolerance: float = 1e-12
) -> None:
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@given(SIZES)
def test_the_segmented_form_equals_the_recurrence(sizes: dict[str, Any]) -> None:
    args = arguments(**sizes)
    assert_close(mamba2_scan(*args), scan(*args, state_space=recurrence))


@given(SIZES, st.floats(0, 1))
def test_two_parts_with_the_state_passed_on_equal_the_whole(
    sizes: dict[str, Any], where: float
) -> None:
    args = arguments(**sizes | {"reverse": False})
    cut = round(where * sizes["length"])
    first, *states = mamba2_scan(args[0][:, :cut], *args[1:])
    second, *states = mamba2_scan(args[0][:, cut:], *args[1:7], *states, *args[9:])
    assert_close([torch.cat([first, second], 1), *states], mamba2_scan(*args))


def test_single_steps_equal_the_whole() -> None:
    args = arguments(length=9)
    y, states = [], args[7:9]
    for t in range(9):
        step, *states = mamba2_scan(args[0][:, t : t + 1], *args[1:7], *states, *args[9:])
        y.append(step)
    assert_close([torch.cat(y, 1), *states], mamba2_scan(*args))


@given(SIZES)
def test_backwards_equals_forwards_over_the_flipped_sequence(sizes: dict[str, Any]) -> None:
    args = arguments(**sizes | {"reverse": True})
    y, *states = mamba2_scan(args[0].flip(1), *args[1:11], False, args[12])
    assert_close([y.flip(1), *states], mamba2_scan(*args))


def test_all_sequences_share_a_state_of_batch_one() -> None:
    args = arguments(batch=3)
    one = [v[:1] for v in args[7:9]]
    same = [v.expand(3, *v.shape[1:]) for v in one]
    assert_close(mamba2_scan(*args[:7], *one, *args[9:]), mamba2_scan(*args[:7], *same, *args[9:]))


def test_a_state_only_decays_without_input() -> None:
    args = arguments(length=5)
    args[1], args[2] = torch.zeros_like(args[1]), torch.zeros_like(args[2])  # x = B = C = 0
    _, _, state = mamba2_scan(*args)
    delta = torch.nn.functional.softplus(args[0][..., -2:] + args[3])
    decay = torch.exp(-(delta * args[4].exp()).sum(1))
    assert_close([state], [args[8] * decay[..., None, None]])


def test_strong_decay_does_not_give_nan() -> None:
    args = arguments(length=130)
    args[0][..., -2:] = 50.0
    args[4] = torch.full_like(args[4], 16.0).log()
    assert all(torch.isfinite(value).all() for value in mamba2_scan(*args))


def test_the_gradient_agrees_with_finite_differences() -> None:
    args = arguments(batch=1, length=5, heads=1, reverse=True)
    inputs = [value.requires_grad_() for value in args[:9]]
    assert torch.autograd.gradcheck(lambda *v: mamba2_scan(*v, *args[9:]), inputs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_computes_in_float32(dtype: torch.dtype) -> None:
    args = [v.to(dtype) if torch.is_tensor(v) else v for v in arguments()]
    exact = [v.float() if torch.is_tensor(v) else v for v in args]
    actual, expected = mamba2_scan(*args), mamba2_scan(*exact)
    assert torch.equal(actual[0], expected[0].to(dtype))
    assert all(state.dtype == torch.float32 for state in actual[1:])


def test_the_operator_is_registered_as_torch_expects() -> None:
    args = arguments(batch=2, length=3)
    torch.library.opcheck(mamba2_scan, tuple(args), test_utils=("test_schema", "test_faketensor"))


@pytest.mark.parametrize(("index", "name"), [(0, "zxbcdt"), (6, "norm_weight"), (8, "ssm_state")])
def test_the_error_names_the_argument_of_the_wrong_shape(index: int, name: str) -> None:
    args = arguments()
    args[index] = args[index][..., :-1]
    with pytest.raises(ValueError, match=f"{name} must have the shape"):
        scan(*args)
