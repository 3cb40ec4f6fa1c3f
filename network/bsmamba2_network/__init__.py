"""The networks in PyTorch, their sizes and their checkpoints."""

from bsmamba2_network.config import PRESETS, Config
from bsmamba2_network.htdemucs import HTDemucs
from bsmamba2_network.htdemucs_config import HTDEMUCS, HTDemucsConfig
from bsmamba2_network.model import BSMamba2
from bsmamba2_network.roformer import RoFormer
from bsmamba2_network.roformer_config import ROFORMERS, RoFormerConfig
from bsmamba2_network.scan import mamba2_scan
from bsmamba2_network.scnet import SCNet
from bsmamba2_network.scnet_config import SCNETS, SCNetConfig

__all__ = [
    "HTDEMUCS",
    "PRESETS",
    "ROFORMERS",
    "SCNETS",
    "BSMamba2",
    "Config",
    "HTDemucs",
    "HTDemucsConfig",
    "RoFormer",
    "RoFormerConfig",
    "SCNet",
    "SCNetConfig",
    "mamba2_scan",
]
