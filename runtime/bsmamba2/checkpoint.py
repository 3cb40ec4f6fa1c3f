"""Reads checkpoints as NumPy tensors, without torch and without running anything they contain.

A ``.ckpt`` is a zip of raw storages and one pickle that says how tensors lie in them. A pickle is
a program: it names classes and functions and has them called. The reader here resolves names to
nothing but its own tensors, plain containers, and, for the bookkeeping that training frameworks
leave behind (omegaconf, Lightning), to a dead object that swallows whatever it is given. Any other
name is refused, and shown.
"""

from __future__ import annotations

import hashlib
import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors

from bsmamba2.array import Audio
from bsmamba2.errors import ModelError

CONFIG_KEY = "bsmamba2.config"
"""Under this key a safetensors file of ours holds the network's sizes, as JSON."""

MAX_PICKLE_BYTES = 64 << 20

_DTYPES: dict[str, npt.DTypeLike] = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "BFloat16Storage": "<u2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
_BOOKKEEPING = (
    "omegaconf", "lightning", "lightning_fabric", "pytorch_lightning", "typing", "pathlib",
    "argparse", "numpy", "torch",
)  # fmt: skip
_BOOKKEEPING_TYPES = ("int", "float", "str", "bool", "tuple")
_PLAIN = {"set": set, "dict": dict, "list": list}
_WRAPPERS = ("state_dict", "model_state_dict", "state")
_FOREIGN = (
    ("BN_mask.", "TS-BSMamba2 (arXiv 2409.06245), another network with a similar name"),
    ("separator_mask.", "TS-BSMamba2 (arXiv 2409.06245), another network with a similar name"),
    (".to_qkv.", "a RoFormer, which has attention where BSMamba2 has Mamba2"),
    ("rotary_embed.", "a RoFormer, which has attention where BSMamba2 has Mamba2"),
    (".mixer.x_proj.", "a band-split Mamba of the first version, not Mamba2"),
)


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by the names that BSMamba2 gives them, in float32."""

    tensors: Mapping[str, Audio]
    metadata: Mapping[str, str]
    """What a safetensors file says of itself; empty for others."""
    sha256: str
    name: str
    """The file's stem."""


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads a ``.safetensors`` file or a PyTorch zip (``.ckpt``, ``.pt``, ``.pth``).

    State dicts wrapped in ``state_dict``, ``model_state_dict`` or ``state``, prefixes of wrapping
    modules, and the windows that the authors' Lightning file keeps are taken off.

    Raises:
        ModelError: not a checkpoint, of another network, damaged, or carrying code.
    """
    if path.is_dir():
        raise ModelError(f"the checkpoint {path} is not a file but a folder")
    try:
        with path.open("rb") as file:
            head = file.read(256)
    except OSError as error:
        raise ModelError(f"the checkpoint {path} cannot be read: {error.strerror}") from None
    if not head:
        raise ModelError(f"the checkpoint {path} is empty (0 bytes): download it again")
    metadata: dict[str, str] = {}
    if path.suffix == ".safetensors":
        tensors, metadata = _read_safetensors(path)
    elif head.startswith(b"PK\x03\x04"):
        tensors = _state_dict(_read_zip(path), path)
    else:
        raise ModelError(f"{path} is no checkpoint: {_looks_like(head)}")
    tensors = _plain_names(tensors)
    for mark, what in _FOREIGN:
        if any(mark in key for key in tensors):
            raise ModelError(f"{path} is a checkpoint of {what}; bsmamba2 runs BSMamba2 alone")
    return Checkpoint(tensors, metadata, file_sha256(path), path.stem)


def match(tensors: Mapping[str, Audio], shapes: Mapping[str, tuple[int, ...]], name: str) -> None:
    """Compares tensors with the names and shapes that a network has, strictly.

    Raises:
        ModelError: naming each missing, unexpected and wrongly shaped key.
    """
    found = {
        "missing": [key for key in shapes if key not in tensors],
        "unexpected": [key for key in tensors if key not in shapes],
        "wrong shape": [
            f"{key} is {tensors[key].shape}, must be {tuple(shape)}"
            for key, shape in shapes.items()
            if key in tensors and tensors[key].shape != tuple(shape)
        ],
    }
    faults = [f"{len(keys)} {kind}: {', '.join(keys)}" for kind, keys in found.items() if keys]
    if faults:
        raise ModelError(f"{name} does not hold this network's weights; {'; '.join(faults)}")


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _looks_like(head: bytes) -> str:
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html")):
        return "it is a web page, so the download went wrong"
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer; fetch the file itself (git lfs pull)"
    if head.startswith(b"\x80"):
        return (
            "it is a bare pickle, which can carry code and is never run here; save the state dict "
            "as safetensors or with torch.save of torch 1.6 or later"
        )
    return "it must be a .safetensors file or a zip written by torch.save"


def _read_safetensors(path: Path) -> tuple[dict[str, Audio], dict[str, str]]:
    try:
        with safetensors.safe_open(path, framework="np") as file:
            tensors = {key: file.get_tensor(key).astype(np.float32) for key in file.keys()}  # noqa: SIM118 - no mapping
            return tensors, dict(file.metadata() or {})
    except (safetensors.SafetensorError, TypeError, ValueError, OSError) as error:
        raise ModelError(f"{path} is a damaged or truncated safetensors file: {error}") from None


class _Inert(dict[Any, Any]):
    """Stands for an object of a training framework: takes anything, does nothing."""

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def __setstate__(self, _: Any) -> None: ...

    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)

    def append(self, _: Any) -> None:
        """Some of them are lists."""

    def extend(self, _: Any) -> None:
        """Some of them are lists."""


@dataclass(frozen=True)
class _Storage:
    """A kind of storage, named in the pickle; ``dtype`` None where tensors cannot be made of it."""

    dtype: str | None


class _TensorUnpickler(pickle.Unpickler):
    """Resolves names to tensors, plain containers and dead objects; see the module's text."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(archive.open(f"{root}/data.pkl"), encoding="utf-8")
        self.archive, self.root = archive, root
        self.storages: dict[str, npt.NDArray[Any]] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch._utils" and name.startswith("_rebuild_tensor"):
            return self.rebuild
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda tensor, *_: tensor
        if module in ("torch", "torch.storage") and name.endswith("Storage"):
            return _Storage(name)
        builtin = name if module in ("builtins", "__builtin__") else ""
        if builtin in _PLAIN:
            return _PLAIN[builtin]
        if module.split(".")[0] in _BOOKKEEPING or builtin in _BOOKKEEPING_TYPES:
            return _Inert
        if (module, name) == ("collections", "defaultdict"):
            return _Inert
        raise ModelError(f"the checkpoint carries code ({module}.{name}) and is refused")

    def persistent_load(self, reference: Any) -> npt.NDArray[Any]:
        """A storage: ('storage', kind, key, device, elements)."""
        _, kind, key, _, elements = reference
        if key not in self.storages:
            dtype = np.dtype(_DTYPES[kind.dtype])
            entry = self.archive.getinfo(f"{self.root}/data/{key}")
            if entry.file_size != elements * dtype.itemsize:
                raise ValueError(f"storage {key} has {entry.file_size} bytes")
            values: npt.NDArray[Any] = np.frombuffer(self.archive.read(entry), dtype)
            if kind.dtype == "BFloat16Storage":  # the upper half of a float32
                values = (values.astype("<u4") << 16).view("<f4")
            self.storages[key] = values
        return self.storages[key]

    @staticmethod
    def rebuild(
        storage: npt.NDArray[Any], offset: int, shape: Any, strides: Any, *_: Any
    ) -> npt.NDArray[Any]:
        """A view of a storage, after checking that it stays inside and repeats nothing."""
        shape, strides = tuple(shape), tuple(strides)
        count = math.prod(shape)
        last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
        inside = min((offset, *shape, *strides), default=0) >= 0 and count <= storage.size
        if not inside or (count and last >= storage.size):
            raise ValueError(f"a tensor of shape {shape} reaches outside its storage")
        steps = [s * storage.itemsize for s in strides]
        return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps, writeable=False)


def _read_zip(path: Path) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            pickles = [
                n for n in archive.namelist() if n.endswith("/data.pkl") and n.count("/") == 1
            ]
            if len(pickles) != 1:
                raise ModelError(f"{path} is a zip, but torch.save did not write it")
            if any(e.compress_type != zipfile.ZIP_STORED for e in archive.infolist()):
                raise ModelError(f"{path} is a compressed zip; torch.save writes none")
            if archive.getinfo(pickles[0]).file_size > MAX_PICKLE_BYTES:
                raise ModelError(
                    f"{path} has an index above {MAX_PICKLE_BYTES >> 20} MiB: not ours"
                )
            return _TensorUnpickler(archive, pickles[0].removesuffix("/data.pkl")).load()
    except zipfile.BadZipFile:
        raise ModelError(f"{path} is truncated or damaged: download it again") from None
    except ModelError as error:
        raise ModelError(f"{path}: {error}") if str(path) not in str(error) else error from None
    except Exception as error:  # a damaged pickle can fail in any way
        raise ModelError(f"{path} is damaged: {type(error).__name__}: {error}") from None


def _state_dict(document: Any, path: Path) -> dict[str, Audio]:
    for wrapper in _WRAPPERS:
        if isinstance(document, dict) and isinstance(document.get(wrapper), dict):
            document = document[wrapper]
    tensors = {
        key: value.astype(np.float32)
        for key, value in (document.items() if isinstance(document, dict) else ())
        if isinstance(key, str) and isinstance(value, np.ndarray)
    }
    if not tensors:
        raise ModelError(f"{path} holds no state dict: no tensors by name")
    return tensors


def _plain_names(tensors: Mapping[str, Audio]) -> dict[str, Audio]:
    """Names without the prefixes of wrapping modules, and without the Lightning file's windows."""
    windows = ("featurizer.", "inverse_featurizer.", "multi_featurizer.")
    kept = {key: value for key, value in tensors.items() if not key.startswith(windows)}
    for prefix in ("module.", "model.", "_orig_mod."):
        if kept and _all_start(kept, prefix):
            kept = {key.removeprefix(prefix): value for key, value in kept.items()}
    return kept


def _all_start(keys: Iterable[str], prefix: str) -> bool:
    return all(key.startswith(prefix) for key in keys)
