"""BSMamba2 in PyTorch: the network, its sizes and its checkpoints."""

from bsmamba2_network.config import PRESETS, Config
from bsmamba2_network.model import BSMamba2
from bsmamba2_network.scan import mamba2_scan

__all__ = ["PRESETS", "BSMamba2", "Config", "mamba2_scan"]
