"""Fixtures: a network small enough for every test, and one of the paper's size."""

from __future__ import annotations

import pytest
import torch

from bsmamba2_network import BSMamba2, Config

MICRO = Config(
    n_fft=32, hop=8, bands=(3, 14), dim=16, depth=2, head_dim=8, state_size=8, chunk=400
)  # fmt: skip


@pytest.fixture(scope="session")
def micro_config() -> Config:
    return MICRO


@pytest.fixture
def micro() -> BSMamba2:
    torch.manual_seed(0)
    return BSMamba2(MICRO).eval()


@pytest.fixture(scope="session")
def paper() -> BSMamba2:
    return BSMamba2.untrained("paper")
