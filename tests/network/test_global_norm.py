"""The norm over a whole example is GroupNorm with one group."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import group_norm

from bsmamba2_network.global_norm import GlobalNorm
from support.msst_reference import snr_db
from support.reference_networks import randomised


def norm_of(channels: int) -> GlobalNorm:
    norm = GlobalNorm(channels)
    randomised(norm)
    return norm


@pytest.mark.parametrize("shape", [(2, 4, 30), (3, 4, 5, 6), (1, 4, 1)])
def test_it_is_group_norm(shape: tuple[int, ...]) -> None:
    x, norm = torch.randn(shape, generator=torch.Generator().manual_seed(1)), norm_of(4)
    torch.testing.assert_close(norm(x), group_norm(x, 1, norm.weight, norm.bias))


@torch.inference_mode()
def test_an_example_of_a_million_elements_keeps_float32s_precision() -> None:
    x, norm = (
        torch.randn(1, 512, 2688, generator=torch.Generator().manual_seed(2)) + 3,
        norm_of(512),
    )
    exact = group_norm(x.double(), 1, norm.weight.double(), norm.bias.double())
    assert snr_db(exact, norm(x)) > 110


def test_a_constant_example_gives_the_bias() -> None:
    norm = norm_of(4)
    torch.testing.assert_close(norm(torch.full((1, 4, 9), 2.5)), norm.bias[:, None].expand(1, 4, 9))
