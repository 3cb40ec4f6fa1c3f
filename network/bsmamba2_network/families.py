"""The networks by family, and how a checkpoint of any of them becomes a network."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from bsmamba2.errors import ModelError, not_one_of
from bsmamba2.formats.checkpoint import Checkpoint, read_checkpoint
from bsmamba2_network.checkpoints import build_network, resolve_config
from bsmamba2_network.config import PRESETS, Config
from bsmamba2_network.model import BSMamba2
from bsmamba2_network.roformer import RoFormer
from bsmamba2_network.roformer_config import ROFORMERS, RoFormerConfig
from bsmamba2_network.sizes import Sizes


class Network(Protocol):
    """What every network has."""

    @property
    def config(self) -> Any:
        """The sizes; see :class:`bsmamba2_network.sizes.Sizes`."""

    def __call__(self, waveform: Tensor) -> Tensor:
        """Separates (b, channels, samples) to (b, stems, channels, samples)."""

    def separate_spectrum(self, mixture: Tensor, grouped: bool = False) -> Tensor:
        """Separates (b, channels, frames, F, 2) to (b, stems, channels, frames, F, 2)."""

    def state_dict(self) -> dict[str, Any]:
        """Returns the weights under the names that checkpoints have."""


FAMILIES: dict[str, tuple[type[nn.Module], type[Sizes]]] = {
    "bs_mamba2": (BSMamba2, Config),
    "bs_roformer": (RoFormer, RoFormerConfig),
    "mel_band_roformer": (RoFormer, RoFormerConfig),
}
"""The class of each family's network and of its sizes."""

SIZES: dict[str, Sizes] = {**PRESETS, **ROFORMERS}
"""Every named size."""


def load_network(
    path: str | os.PathLike[str], config: str | os.PathLike[str] | Sizes | None = None
) -> Network:
    """Reads a checkpoint of any family; see :meth:`bsmamba2_network.BSMamba2.load`."""
    return network_of(read_checkpoint(Path(path)), config)


def network_of(
    checkpoint: Checkpoint, config: str | os.PathLike[str] | Sizes | None = None
) -> Network:
    """Builds the network of a checkpoint that has been read, in evaluation mode.

    Raises:
        ModelError: the checkpoint or the config cannot be used, or they contradict.
    """
    network, sizes = FAMILIES[checkpoint.family]
    found = resolve_config(checkpoint, config, sizes)
    return build_network(network, found, checkpoint)  # type: ignore[return-value]


def untrained(size: str, seed: int = 0) -> Network:
    """Returns a network of a named size with random weights, for tests and timing.

    Raises:
        ModelError: no size has that name.
    """
    if size not in SIZES:
        raise ModelError(not_one_of("size", SIZES, size))
    network: Any = RoFormer if size in ROFORMERS else BSMamba2
    result: Network = network.untrained(size, seed)
    return result
