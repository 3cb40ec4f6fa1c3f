"""Reads and writes checkpoints. The runtime parses the files; torch never unpickles one."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save_file
from torch import nn

from bsmamba2.errors import ModelError, printable
from bsmamba2.files.part_file import replacing
from bsmamba2.formats.checkpoint import CONFIG_KEY, FIRST_MIXER, Checkpoint, match, read_checkpoint
from bsmamba2.formats.msst_yaml import read_yaml
from bsmamba2_network.config import Config

Network = TypeVar("Network", bound=nn.Module)


def load(
    build: Callable[[Config], Network],
    path: Path,
    config: str | os.PathLike[str] | Config | None,
) -> Network:
    """Reads a network; see :meth:`bsmamba2_network.BSMamba2.load`."""
    checkpoint = read_checkpoint(path)
    return build_network(build, resolve_config(checkpoint, config), checkpoint)


def build_network(
    build: Callable[[Config], Network], config: Config, checkpoint: Checkpoint
) -> Network:
    """Builds a network of these sizes, in evaluation mode, with a checkpoint's tensors.

    Allocates memory only after checking that the names and shapes agree.

    Args:
        build: makes a network from its sizes, e.g. ``BSMamba2``.

    Raises:
        ModelError: a key is missing, unexpected or of the wrong shape; the message names each.
    """
    with torch.device("meta"):
        net = build(config)
    shapes = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    match(checkpoint.tensors, shapes, checkpoint.name)
    tensors = {key: torch.tensor(value) for key, value in checkpoint.tensors.items()}
    net.load_state_dict(tensors, assign=True)
    return net.eval()


def save(net: nn.Module, config: Config, path: Path) -> None:
    """Writes a network; see :meth:`bsmamba2_network.BSMamba2.save`."""
    tensors = {key: value.contiguous() for key, value in net.state_dict().items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={CONFIG_KEY: config.to_json()})


def resolve_config(
    checkpoint: Checkpoint, config: str | os.PathLike[str] | Config | None
) -> Config:
    """Returns the sizes as given, else from the checkpoint's metadata, else from its shapes."""
    if isinstance(config, Config):
        return config
    if config is not None:
        return Config.from_msst(read_yaml(Path(config)))
    if CONFIG_KEY in checkpoint.metadata:
        return Config.from_json(checkpoint.metadata[CONFIG_KEY])
    return _config_from_shapes({key: value.shape for key, value in checkpoint.tensors.items()})


def _config_from_shapes(shapes: Mapping[str, tuple[int, ...]]) -> Config:
    """Derives the sizes from the weights' shapes.

    Hop, sample rate and chunk do not affect any shape and keep their defaults. Assumes stereo: a
    mono network with bands twice as wide has the same shapes.
    """
    try:
        dim = shapes["final_norm.gamma"][0]
        heads = shapes[FIRST_MIXER + "A_log"][0]
        d_inner = shapes[FIRST_MIXER + "norm.weight"][0]
        channels = shapes[FIRST_MIXER + "conv1d.weight"][0]
        gammas = _numbered(shapes, r"band_split\.to_features\.(\d+)\.0\.gamma")
        bands = tuple(shapes[f"band_split.to_features.{k}.0.gamma"][0] // 4 for k in gammas)
        masks = _numbered(shapes, r"mask_estimators\.(\d+)\.")
        hidden = shapes["mask_estimators.0.to_freqs.0.0.0.weight"][0]
    except (KeyError, IndexError, ValueError):
        first = printable(", ".join(list(shapes)[:3]))
        raise ModelError(
            f"checkpoint must hold the weights of a BSMamba2; got the keys {first}, …"
        ) from None
    if min(dim, heads, d_inner, hidden) < 1:
        raise ModelError("the checkpoint is damaged: some of its weights have size 0")
    return Config(
        stems=("vocals",) if len(masks) == 1 else tuple(f"stem{s}" for s in masks),
        n_fft=2 * (sum(bands) - 1),
        bands=bands,
        dim=dim,
        depth=len(_numbered(shapes, r"layers\.(\d+)\.")),
        expand=d_inner // dim,
        head_dim=d_inner // heads,
        state_size=(channels - d_inner) // 2,
        mask_expand=hidden // dim,
    )


def _numbered(keys: Mapping[str, Any], pattern: str) -> list[int]:
    """Returns 0 … n − 1, where n distinct numbers match the pattern's group in the keys."""
    numbers = {int(m.group(1)) for key in keys if (m := re.match(pattern, key))}
    return list(range(len(numbers)))
