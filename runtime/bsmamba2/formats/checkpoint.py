"""Reads checkpoints as NumPy tensors under their networks' names, and checks them strictly.

No code in a checkpoint is ever run: see :mod:`bsmamba2.formats.pickle_reader`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from bsmamba2.audio.array import Audio
from bsmamba2.errors import ModelError, first_line, printable
from bsmamba2.files.regular_file import open_regular
from bsmamba2.formats.bfloat16 import STORED_DTYPE, widen_bfloat16
from bsmamba2.formats.demucs_package import metadata_of
from bsmamba2.formats.families import recognise
from bsmamba2.formats.pickle_reader import read_torch_file

CONFIG_KEY = "bsmamba2.config"
"""The key in our safetensors files that holds the sizes of the network, as JSON."""

LICENCE_KEY = "bsmamba2.licence"
"""The key that holds the licence of the weights, in one line."""

FIRST_MIXER = "layers.0.0.forward_blocks.0.mixer."
"""The prefix of the tensors of the first mixer, from which sizes are read."""

MARK = f"{FIRST_MIXER}A_log"
"""The name of a tensor that every BSMamba2 has, and no other network."""

ZIP_MARK = b"PK\x03\x04"

MAX_BYTES = 16 << 30
"""Far more than any checkpoint; a file of which most is a hole may state any length."""

MAX_HEADER_BYTES = 8 << 20
"""The longest header of a safetensors file; that of the paper's size has 72 KB."""

_SAFETENSORS_DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": STORED_DTYPE,
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}
_WRAPPERS = ("state", "state_dict", "model_state_dict", "best_state")


@dataclass(frozen=True)
class Checkpoint:
    """Tensors in float32, under their network's names."""

    tensors: Mapping[str, Audio]
    metadata: Mapping[str, str]
    """The metadata of a safetensors file, or of Demucs' package; empty for other files."""
    sha256: str
    name: str
    """The file name without its suffix."""
    family: str = "bs_mamba2"
    """The network; see :mod:`bsmamba2.formats.families`."""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor by name."""
        return {name: values.shape for name, values in self.tensors.items()}

    @property
    def title(self) -> str:
        """The name as a manifest holds it: up to 200 printable characters."""
        return printable(self.name, limit=199)

    @property
    def licence(self) -> str | None:
        """The licence of the weights that the file states, in one line."""
        stated = self.metadata.get(LICENCE_KEY)
        return None if stated is None else printable(stated)


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads a ``.safetensors`` file or a PyTorch zip (``.ckpt``, ``.pt``, ``.pth``, ``.th``).

    A state dict may be wrapped in ``state_dict``, ``model_state_dict`` or ``state``. Prefixes of
    wrapping modules are stripped, and the windows in the authors' Lightning file are dropped.

    Raises:
        ModelError: the file is not a checkpoint, is of another network, is damaged, or contains
            code.
    """
    if path.is_dir():
        raise ModelError(f"the checkpoint {path} is a folder: name the file in it")
    try:
        with open_regular(path) as file:
            head = file.read(256)
            if path.suffix != ".safetensors" and not head.startswith(ZIP_MARK) and head:
                raise ModelError(f"{path} is not a checkpoint: {_describe(head)}")
            if os.fstat(file.fileno()).st_size > MAX_BYTES:
                raise ModelError(f"{path} has more than {MAX_BYTES >> 30} GiB: save only tensors")
            content = head + file.read()
    except OSError as error:
        raise ModelError(
            f"the checkpoint {path} cannot be read ({first_line(error)}): check its name"
        ) from None
    if not content:
        raise ModelError(f"the checkpoint {path} is empty (0 bytes): download it again")
    metadata: dict[str, str] = {}
    if path.suffix == ".safetensors":
        tensors, metadata = _read_safetensors(content, path)
    else:
        document = read_torch_file(content, path)
        metadata = metadata_of(document, path)
        tensors = _state_dict(document, len(content), path)
    tensors = _plain_names(tensors)
    family = recognise(tensors, path)
    sha256 = hashlib.sha256(content).hexdigest()
    return Checkpoint(tensors, metadata, sha256, path.stem, family)


def match(tensors: Mapping[str, Audio], shapes: Mapping[str, tuple[int, ...]], name: str) -> None:
    """Requires exactly the names and shapes of a network.

    Raises:
        ModelError: keys are missing, unexpected or of a wrong shape. The message names the first
            of each kind; the notes of the exception name all.
    """
    differences = {
        "missing": [key for key in shapes if key not in tensors],
        "unexpected": [key for key in tensors if key not in shapes],
        "wrong shape": [
            f"{key} is {tensors[key].shape}, must be {tuple(shape)}"
            for key, shape in shapes.items()
            if key in tensors and tensors[key].shape != tuple(shape)
        ],
    }
    faults = {kind: keys for kind, keys in differences.items() if keys}
    if faults:
        parts = [f"{len(keys)} {kind}: {_first(keys)}" for kind, keys in faults.items()]
        error = ModelError(f"{name} does not hold this network's weights; {'; '.join(parts)}")
        for kind, keys in faults.items():
            error.add_note(f"{kind}: {printable(', '.join(keys), limit=1 << 20)}")
        raise error


def _first(keys: list[str]) -> str:
    rest = f" and {len(keys) - 4} more" if len(keys) > 4 else ""
    return printable(", ".join(keys[:4]), limit=500) + rest


def _describe(head: bytes) -> str:
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html")):
        return "it is a web page, so the download failed"
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer; fetch the file itself (git lfs pull)"
    if head.startswith(b"\x80"):
        return (
            "it is a bare pickle, which can contain code and is never loaded; save the state dict "
            "as safetensors, or with torch.save of torch 1.6 or later"
        )
    return "it must be a .safetensors file or a zip written by torch.save"


def _read_safetensors(content: bytes, path: Path) -> tuple[dict[str, Audio], dict[str, str]]:
    try:
        if int.from_bytes(content[:8], "little") > MAX_HEADER_BYTES:
            raise ValueError(f"its header is larger than {MAX_HEADER_BYTES >> 20} MiB")
        entries = dict(safetensors.deserialize(content))  # checks the header that is read next
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        metadata = dict(header.get("__metadata__") or {})
        return {key: _to_float32(key, path, **entry) for key, entry in entries.items()}, metadata
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise ModelError(
            f"{path} is a damaged or truncated safetensors file ({first_line(error)}): download it "
            "again"
        ) from None


def _to_float32(key: str, path: Path, dtype: str, shape: list[int], data: bytes) -> Audio:
    if dtype not in _SAFETENSORS_DTYPES:
        raise ValueError(f"no supported network has tensors of type {dtype}")
    values = np.frombuffer(data, _SAFETENSORS_DTYPES[dtype])
    if dtype == "BF16":
        values = widen_bfloat16(values)
    return _narrowed(key, values, path).reshape(shape)


def _narrowed(key: str, values: Any, path: Path) -> Audio:
    """Returns float32.

    Raises:
        ModelError: a number is beyond its range.
    """
    try:
        with np.errstate(over="raise"):
            return np.asarray(values, np.float32, order="C")
    except FloatingPointError:
        raise ModelError(
            f"{path} holds numbers beyond the range of float32 ({printable(key)}): it is damaged, "
            "or its training diverged; use another checkpoint"
        ) from None


def _state_dict(document: Any, size: int, path: Path) -> dict[str, Audio]:
    for wrapper in _WRAPPERS:
        if isinstance(document, dict) and isinstance(document.get(wrapper), dict):
            document = document[wrapper]
    tensors = {
        key: value
        for key, value in (document.items() if isinstance(document, dict) else ())
        if isinstance(key, str) and isinstance(value, np.ndarray)
    }
    if not tensors:
        keys = list(document)[:3] if isinstance(document, dict) else [type(document).__name__]
        found = printable(", ".join(map(str, keys)))
        raise ModelError(
            f"{path} holds no state dict, i.e. tensors by name (but {found}): save net.state_dict()"
        )
    # If many tensors share one storage, copying them would take many times the size of the file.
    if sum(math.prod(value.shape) for value in tensors.values()) > size:
        raise ModelError(
            f"{path} holds fewer numbers than its tensors together: save copies of the tensors"
        )
    return {key: _narrowed(key, value, path) for key, value in tensors.items()}


def _plain_names(tensors: Mapping[str, Audio]) -> dict[str, Audio]:
    """Strips the prefixes of wrapping modules and drops the Lightning file's windows."""
    windows = ("featurizer.", "inverse_featurizer.", "multi_featurizer.")
    kept = {key: value for key, value in tensors.items() if not key.startswith(windows)}
    for prefix in ("module.", "model.", "_orig_mod."):
        if kept and _all_start(kept, prefix):
            kept = {key.removeprefix(prefix): value for key, value in kept.items()}
    return kept


def _all_start(keys: Iterable[str], prefix: str) -> bool:
    return all(key.startswith(prefix) for key in keys)
