"""The compact form of BSMamba2 computes the same as the network."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from bsmamba2_network import BSMamba2, Config, compact
from kernel.scans import snr_db

SMALL = dataclasses.replace(Config.preset("tiny"), depth=1)


def network(config: Config) -> BSMamba2:
    """A network none of whose weights is 0 or 1, as norms' and biases are at first."""
    torch.manual_seed(0)
    net = BSMamba2(config).eval()
    with torch.no_grad():
        for value in net.parameters():
            value.mul_(1 + 0.3 * torch.randn_like(value)).add_(0.02 * torch.randn_like(value))
    return net


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"stems": ("vocals", "drums")},
        {"channels": 1},
        {"bands": (41,) * 25},  # of one width
        {"head_dim": 32},  # rows of the projection that are no multiple of 8 values
    ],
)
def test_stems_equal_the_networks(changes: dict[str, Any]) -> None:
    net = network(dataclasses.replace(SMALL, **changes))
    mixture = torch.randn(2, net.config.channels, 5, net.config.bins, 2)
    with torch.inference_mode():
        expected, actual = net.separate_spectrum(mixture), compact.separate_spectrum(net, mixture)
    assert snr_db(expected.numpy(), actual.numpy()) >= 100


def test_silence_stays_silent() -> None:
    net = network(SMALL)
    with torch.inference_mode():
        stems = compact.separate_spectrum(net, torch.zeros(1, 2, 4, net.config.bins, 2))
    assert torch.equal(stems, torch.zeros_like(stems))
