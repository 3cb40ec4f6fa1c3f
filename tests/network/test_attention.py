"""The attention operator: its fused form, its gradients, and what rotation means."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bsmamba2_network import attention
from bsmamba2_network.attention import rotary_attention

HEADS, PAIRS = 3, 4


def inputs(batch: int = 2, length: int = 7, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = (batch, length, 3 * HEADS * 2 * PAIRS), (batch, length, HEADS), (PAIRS,)
    return [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]


def slow_twin(qkv: Tensor, gates: Tensor, freqs: Tensor) -> Tensor:
    """Steps 1 to 3 with complex numbers, one token at a time."""
    batch, length = qkv.shape[:2]
    q, k, v = qkv.reshape(batch, length, 3, HEADS, 2 * PAIRS).unbind(2)
    turns = torch.polar(torch.ones(PAIRS).double(), freqs)
    points = [torch.view_as_complex(x.unflatten(-1, (PAIRS, 2)).contiguous()) for x in (q, k)]
    out = torch.empty_like(v)
    for i in range(length):
        scores = torch.stack(
            [(points[0][:, i] * turns**i * (points[1][:, j] * turns**j).conj()).real.sum(-1)
             for j in range(length)], -1,
        )  # fmt: skip
        weights = torch.softmax(scores / (2 * PAIRS) ** 0.5, -1)
        out[:, i] = torch.einsum("bhj,bjhp->bhp", weights, v) * gates[:, i].sigmoid()[..., None]
    return out.flatten(2)


def test_the_body_and_the_fused_form_equal_a_slow_twin() -> None:
    arguments = inputs()
    expected = slow_twin(*arguments)
    for body in (attention.attention, attention.fused, rotary_attention):
        torch.testing.assert_close(body(*arguments, HEADS), expected)


@pytest.mark.parametrize(("batch", "length"), [(0, 5), (2, 0), (1, 1)])
def test_empty_and_single_sequences_are_allowed(batch: int, length: int) -> None:
    y = rotary_attention(*inputs(batch, length), HEADS)
    assert y.shape == (batch, length, HEADS * 2 * PAIRS)


def test_many_rows_run_in_parts_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = inputs(batch=7)
    expected = rotary_attention(*arguments, HEADS)
    monkeypatch.setattr(attention, "MOST_ROWS", 3)
    torch.testing.assert_close(rotary_attention(*arguments, HEADS), expected)


def test_tokens_in_another_order_without_rotation_give_results_in_that_order() -> None:
    qkv, gates, freqs = inputs()
    order = torch.randperm(7, generator=torch.Generator().manual_seed(1))
    still = torch.zeros_like(freqs)
    expected = rotary_attention(qkv, gates, still, HEADS)[:, order]
    torch.testing.assert_close(
        rotary_attention(qkv[:, order], gates[:, order], still, HEADS), expected
    )


def test_gradients_are_those_of_the_body() -> None:
    arguments = [v.requires_grad_() for v in inputs(1, 4)]
    assert torch.autograd.gradcheck(lambda *v: rotary_attention(*v, HEADS), arguments)


def test_half_precision_keeps_its_type_and_stays_close() -> None:
    exact = inputs(1, 200, torch.float32)
    expected = rotary_attention(*exact, HEADS)
    half = rotary_attention(*(v.bfloat16() for v in exact[:2]), exact[2], HEADS)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), expected, rtol=0.05, atol=0.05)


def test_shapes_that_do_not_fit_are_named() -> None:
    qkv, gates, freqs = inputs()
    with pytest.raises(ValueError, match=r"gates must have the shape \(2, 7, 3\); got"):
        rotary_attention(qkv, gates[..., :2], freqs, HEADS)
    with pytest.raises(ValueError, match=r"qkv must have the shape \(2, 7, 54\); got"):
        rotary_attention(qkv, gates, freqs[:3], HEADS)


def test_the_registered_operator_is_complete() -> None:
    torch.library.opcheck(rotary_attention, (*inputs(1, 3), HEADS), test_utils="test_schema")
    torch.library.opcheck(rotary_attention, (*inputs(1, 3), HEADS), test_utils="test_faketensor")
