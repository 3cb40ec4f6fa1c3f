"""Checkpoints in and out of the network. Reading is the runtime's; torch unpickles nothing here."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import yaml
from safetensors.torch import save_file

from bsmamba2.errors import ModelError, printable
from bsmamba2.formats.checkpoint import CONFIG_KEY, Checkpoint, match, read_checkpoint
from bsmamba2_network.config import Config

if TYPE_CHECKING:
    from bsmamba2_network.model import BSMamba2

    Network = TypeVar("Network", bound=BSMamba2)


class _TupleLoader(yaml.SafeLoader):
    """Safe YAML that also knows the tuples which MSST's files hold."""


def _tuple(loader: yaml.SafeLoader, node: yaml.SequenceNode) -> tuple[Any, ...]:
    return tuple(loader.construct_sequence(node))


_TupleLoader.add_constructor("tag:yaml.org,2002:python/tuple", _tuple)


def load(
    network: type[Network],
    path: Path,
    config: str | os.PathLike[str] | Config | None,
) -> Network:
    """See :meth:`bsmamba2_network.BSMamba2.load`."""
    checkpoint = read_checkpoint(path)
    return pour(network, resolve_config(checkpoint, config), checkpoint)


def pour(network: type[Network], config: Config, checkpoint: Checkpoint) -> Network:
    """A network of these sizes with a checkpoint's tensors, in evaluation.

    Memory is taken only when the names and shapes agree.

    Raises:
        ModelError: naming each key that is missing, unexpected or wrongly shaped.
    """
    with torch.device("meta"):
        net = network(config)
    shapes = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    match(checkpoint.tensors, shapes, checkpoint.name)
    tensors = {key: torch.tensor(value) for key, value in checkpoint.tensors.items()}
    net.load_state_dict(tensors, assign=True)
    return net.eval()


def save(net: BSMamba2, path: Path) -> None:
    """See :meth:`bsmamba2_network.BSMamba2.save`."""
    tensors = {key: value.contiguous() for key, value in net.state_dict().items()}
    save_file(tensors, path, metadata={CONFIG_KEY: net.config.to_json()})


def resolve_config(
    checkpoint: Checkpoint, config: str | os.PathLike[str] | Config | None
) -> Config:
    """The sizes of a checkpoint: as given, else as stored with it, else read off its shapes."""
    if isinstance(config, Config):
        return config
    if config is not None:
        return Config.from_msst(read_yaml(Path(config)))
    if CONFIG_KEY in checkpoint.metadata:
        return Config.from_json(checkpoint.metadata[CONFIG_KEY])
    return _config_from_shapes({key: value.shape for key, value in checkpoint.tensors.items()})


def read_yaml(path: Path) -> Mapping[str, Any]:
    """A yaml file as plain data.

    Raises:
        ModelError: unreadable, not yaml, or holding objects other than tuples.
    """
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=_TupleLoader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = printable(" ".join(str(error).split()))
        raise ModelError(f"config {path} is not a readable yaml file: {reason}") from None
    if not isinstance(document, Mapping):
        raise ModelError(f"config {path} must be a yaml mapping; it is {type(document).__name__}")
    return document


def _config_from_shapes(shapes: Mapping[str, tuple[int, ...]]) -> Config:
    """Every size but hop, rate and chunk, which leave no trace in the weights.

    Stereo is assumed: a mono network of twice the bandwidth would look the same.
    """
    mixer = "layers.0.0.forward_blocks.0.mixer."
    try:
        dim = shapes["final_norm.gamma"][0]
        heads = shapes[mixer + "A_log"][0]
        d_inner = shapes[mixer + "norm.weight"][0]
        channels, _, width = shapes[mixer + "conv1d.weight"]
        gammas = _numbered(shapes, r"band_split\.to_features\.(\d+)\.0\.gamma")
        bands = tuple(shapes[f"band_split.to_features.{k}.0.gamma"][0] // 4 for k in gammas)
        masks = _numbered(shapes, r"mask_estimators\.(\d+)\.")
        hidden = shapes["mask_estimators.0.to_freqs.0.0.0.weight"][0]
    except (KeyError, IndexError, ValueError):
        first = printable(", ".join(list(shapes)[:3]))
        raise ModelError(
            f"these are not the weights of a BSMamba2: its keys are missing (found {first}, …)"
        ) from None
    if min(dim, heads, d_inner, hidden) < 1:
        raise ModelError("these weights are damaged: some of them are of size 0")
    return Config(
        stems=("vocals",) if len(masks) == 1 else tuple(f"stem{s}" for s in masks),
        n_fft=2 * (sum(bands) - 1),
        bands=bands,
        dim=dim,
        depth=len(_numbered(shapes, r"layers\.(\d+)\.")),
        expand=d_inner // dim,
        head_dim=d_inner // heads,
        state_size=(channels - d_inner) // 2,
        conv_width=width,
        mask_expand=hidden // dim,
    )


def _numbered(keys: Mapping[str, Any], pattern: str) -> list[int]:
    """The numbers 0 … n − 1 that a pattern finds among the keys."""
    found = {int(m.group(1)) for key in keys if (m := re.match(pattern, key))}
    return list(range(len(found)))
