"""A network small enough that every test can afford one, and one the size of the paper's."""

from __future__ import annotations

import pytest
import torch

from bsmamba2_network import BSMamba2, Config

MICRO = Config(
    n_fft=32, hop=12, bands=(3, 14), dim=16, depth=2, head_dim=8, state_size=8, chunk=400
)  # fmt: skip


@pytest.fixture(scope="session")
def micro_config():
    return MICRO


@pytest.fixture
def micro():
    torch.manual_seed(0)
    return BSMamba2(MICRO).eval()


@pytest.fixture(scope="session")
def paper():
    return BSMamba2.untrained("paper")
