"""The networks by family, and how a checkpoint of any of them becomes a network."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, cast

from torch import Tensor, nn

from bsmamba2.errors import ModelError, not_one_of
from bsmamba2.formats.checkpoint import Checkpoint, read_checkpoint
from bsmamba2.models.graph import stored_settings
from bsmamba2.models.registry import settings_of
from bsmamba2_network.checkpoints import build_network, resolve_config
from bsmamba2_network.config import PRESETS, Config
from bsmamba2_network.htdemucs import HTDemucs
from bsmamba2_network.htdemucs_config import HTDEMUCS, HTDemucsConfig
from bsmamba2_network.model import BSMamba2
from bsmamba2_network.roformer import RoFormer
from bsmamba2_network.roformer_config import ROFORMERS, RoFormerConfig
from bsmamba2_network.scnet import SCNet
from bsmamba2_network.scnet_config import SCNETS, SCNetConfig
from bsmamba2_network.sizes import Sizes


class Network(Protocol):
    """What every network has, except that HT Demucs has ``separate_both`` in place of
    ``separate_spectrum``."""

    @property
    def config(self) -> Any:
        """The sizes; see :class:`bsmamba2_network.sizes.Sizes`."""

    def __call__(self, waveform: Tensor) -> Tensor:
        """Separates (b, channels, samples) to (b, stems, channels, samples)."""

    def separate_spectrum(self, mixture: Tensor, grouped: bool = False) -> Tensor:
        """Separates (b, channels, frames, F, 2) to (b, stems, channels, frames, F, 2)."""

    def state_dict(self) -> dict[str, Any]:
        """Returns the weights under the names that checkpoints have."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yields each weight once, also if it has several names."""


FAMILIES: dict[str, tuple[type[nn.Module], type[Sizes]]] = {
    "bs_mamba2": (BSMamba2, Config),
    "bs_roformer": (RoFormer, RoFormerConfig),
    "mel_band_roformer": (RoFormer, RoFormerConfig),
    "scnet": (SCNet, SCNetConfig),
    "htdemucs": (HTDemucs, HTDemucsConfig),
}
"""The class of each family's network and of its sizes."""

SIZES: dict[str, Sizes] = {**PRESETS, **ROFORMERS, **SCNETS, **HTDEMUCS}
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

    Without a config, what the catalogue knows of a published checkpoint replaces the defaults of
    sizes that its tensors do not tell.

    Raises:
        ModelError: the checkpoint or the config cannot be used, or they contradict.
    """
    network, sizes = FAMILIES[checkpoint.family]
    found: Any = resolve_config(checkpoint, config, sizes)
    if config is None:
        known = dataclasses.asdict(settings_of(checkpoint.sha256))
        names = {field.name for field in dataclasses.fields(found)}
        changes = {k: v for k, v in known.items() if k in names and v is not None}
        found = dataclasses.replace(found, **changes)
    return cast("Network", build_network(cast("Any", network), found, checkpoint))


def guesses(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Returns the names of the sizes that neither the checkpoint nor the catalogue states."""
    known = settings_of(checkpoint.sha256).over(stored_settings(checkpoint))
    return known.unknown(checkpoint.family)


def untrained(size: str, seed: int = 0) -> Network:
    """Returns a network of a named size with random weights, for tests and timing.

    Raises:
        ModelError: no size has that name.
    """
    if size not in SIZES:
        raise ModelError(not_one_of("size", SIZES, size))
    config: Any = SIZES[size]
    network: Any = FAMILIES[config.family][0]
    result: Network = network.untrained(size, seed)
    return result
