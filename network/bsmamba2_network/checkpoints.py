"""Reads and writes checkpoints. The runtime parses the files; torch never unpickles one."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from bsmamba2.errors import ModelError
from bsmamba2.files.part_file import replacing
from bsmamba2.formats.checkpoint import CONFIG_KEY, LICENCE_KEY, Checkpoint, match
from bsmamba2.formats.demucs_package import ARGUMENTS_KEY, CLASS_KEY, OPTIONS_KEY, package_of
from bsmamba2.formats.yaml_file import read_yaml
from bsmamba2.models.model_file import open_checkpoint
from bsmamba2.models.registry import find_by_sha256
from bsmamba2_network.htdemucs_config import HTDemucsConfig
from bsmamba2_network.sizes import Sizes

Network = TypeVar("Network", bound="StoredNetwork")
Config = TypeVar("Config", bound=Sizes)

SIZE_KEYS = (CONFIG_KEY, CLASS_KEY, ARGUMENTS_KEY, OPTIONS_KEY)
"""The keys of metadata that state a network's sizes, in our files and in Demucs'."""


class StoredNetwork(nn.Module):
    """A network that can be written as a checkpoint."""

    config: Any
    """The sizes; see :class:`bsmamba2_network.sizes.Sizes`."""

    metadata: Mapping[str, str] = MappingProxyType({})
    """What the checkpoint states about its weights, such as their licence
    (``bsmamba2.licence``)."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the weights as safetensors, with the sizes and :attr:`metadata` in the file.

        A network that was loaded and trained further keeps the licence of the first weights;
        change ``metadata`` if another one applies.
        """
        # The format has no shared tensors, so each name gets a copy.
        plain = torch.contiguous_format
        tensors = {key: v.clone(memory_format=plain) for key, v in self.state_dict().items()}
        with replacing(Path(path)) as temporary:
            save_file(tensors, temporary, {**self.metadata, CONFIG_KEY: self.config.to_json()})


def load(
    build: Callable[[Config], Network],
    kind: type[Config],
    model: str | os.PathLike[str],
    config: str | os.PathLike[str] | Config | None,
) -> Network:
    """Reads a network; see :meth:`bsmamba2_network.BSMamba2.load`.

    Args:
        build: makes a network from its sizes, e.g. ``BSMamba2``.
        kind: the class of its sizes.
        model, config: as for ``BSMamba2.load``.
    """
    checkpoint = open_checkpoint(model)
    return build_network(build, resolve_config(checkpoint, config, kind), checkpoint)


def build_network(
    build: Callable[[Config], Network], config: Config, checkpoint: Checkpoint
) -> Network:
    """Builds a network of these sizes, in evaluation mode, with a checkpoint's tensors.

    Allocates memory only after checking that the names and shapes agree.

    Args:
        build: makes a network from its sizes, e.g. ``BSMamba2``.

    Raises:
        ModelError: a key is missing, unexpected or of the wrong shape; the message names each. Or
            the file has several values for a tensor that the network has once.
    """
    with torch.device("meta"):
        net = build(config)
    shapes = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    match(checkpoint.tensors, shapes, checkpoint.name)
    tensors = {key: torch.tensor(value) for key, value in checkpoint.tensors.items()}
    _require_one_value(net, tensors, checkpoint.name)
    net.load_state_dict(tensors, assign=True)
    net.metadata = _about_weights(checkpoint)
    return net.eval()


def _about_weights(checkpoint: Checkpoint) -> dict[str, str]:
    """Returns the metadata without the sizes, with the licence of a published checkpoint."""
    about = {key: text for key, text in checkpoint.metadata.items() if key not in SIZE_KEYS}
    model = None if LICENCE_KEY in about else find_by_sha256(checkpoint.sha256)
    return about if model is None else {**about, LICENCE_KEY: model.licence}


def _require_one_value(net: nn.Module, tensors: Mapping[str, Tensor], name: str) -> None:
    """Requires that keys of one shared tensor have one value."""
    first: dict[int, str] = {}
    for key, parameter in net.named_parameters(remove_duplicate=False):
        known = first.setdefault(id(parameter), key)
        if key != known and not torch.equal(tensors[known], tensors[key]):
            raise ModelError(
                f"{name} must have the same values in {known} and {key}, which the network shares; "
                "got different ones: it is damaged or of another network"
            )


def resolve_config(
    checkpoint: Checkpoint, config: str | os.PathLike[str] | Config | None, kind: type[Config]
) -> Config:
    """Returns the sizes as given, else from the checkpoint's metadata, else from its shapes.

    Raises:
        ModelError: a yaml contradicts the weights' shapes, or cannot be read.
    """
    if isinstance(config, kind):
        return config
    shapes = {key: value.shape for key, value in checkpoint.tensors.items()}
    if isinstance(config, (str, os.PathLike)):
        stated = kind.from_msst(read_yaml(Path(config)))
        stated.require_agreement(shapes)
        return stated
    if CONFIG_KEY in checkpoint.metadata:
        return kind.from_json(checkpoint.metadata[CONFIG_KEY])
    package = package_of(checkpoint.metadata, Path(checkpoint.name))
    if package is not None and kind is HTDemucsConfig:
        packaged = HTDemucsConfig.from_options(package.options)
        packaged.require_agreement(shapes)
        return cast("Config", packaged)
    return kind.from_shapes(shapes)
