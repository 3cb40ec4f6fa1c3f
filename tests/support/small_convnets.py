"""An SCNet and an HT Demucs small enough to be traced in every run."""

from __future__ import annotations

import torch

from bsmamba2_network import HTDemucs, HTDemucsConfig, SCNet, SCNetConfig
from bsmamba2_network.families import Network
from support.reference_networks import randomised

SIZES: dict[str, SCNetConfig | HTDemucsConfig] = {
    "scnet": SCNetConfig(
        n_fft=64,
        hop=16,
        widths=(4,),
        conv_depths=(1, 1, 1),
        dual_paths=2,
        normalize=True,
        chunk=400,
    ),
    "htdemucs": HTDemucsConfig(n_fft=32, width=8, depth=1, bottom=16, layers=2, chunk=300),
}


def small_network(family: str) -> Network:
    """Returns the family's network with random weights, the same in every call."""
    config = SIZES[family]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = SCNet(config) if isinstance(config, SCNetConfig) else HTDemucs(config)
    randomised(net)
    return net  # type: ignore[return-value]  # HT Demucs has separate_both
