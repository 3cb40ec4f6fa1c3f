"""The networks in PyTorch, their sizes and their checkpoints."""

from bsmamba2_network.config import PRESETS, Config
from bsmamba2_network.model import BSMamba2
from bsmamba2_network.roformer import RoFormer
from bsmamba2_network.roformer_config import ROFORMERS, RoFormerConfig
from bsmamba2_network.scan import mamba2_scan

__all__ = [
    "PRESETS",
    "ROFORMERS",
    "BSMamba2",
    "Config",
    "RoFormer",
    "RoFormerConfig",
    "mamba2_scan",
]
