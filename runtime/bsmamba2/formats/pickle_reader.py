"""Reads the tensors of a file written by torch.save, without torch and without unpickling it.

The file is a zip of raw storages and one pickle that describes the tensors in them. A pickle is a
program for a stack machine, and Python's machine calls any function that the program names. The
machine in this module supports only the instructions that torch.save writes, and calls nothing. A
few names create tensors or plain containers; names from the bookkeeping of training frameworks
create inert placeholders. Any other name is refused, and the error shows it.
"""

from __future__ import annotations

import io
import math
import pickletools
import re
import struct
import warnings
import zipfile
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bsmamba2.errors import ModelError, first_line, printable
from bsmamba2.formats.bfloat16 import STORED_DTYPE, widen_bfloat16

MAX_PICKLE_BYTES = 64 << 20
MAX_INSTRUCTIONS = 1 << 20
"""The index of a checkpoint of the paper's size has 21,000."""

MAX_ENTRIES = 1 << 16
"""The most files in the zip; a checkpoint of the paper's size has 681."""

MAX_TEXT = 4096
"""The longest text that can be a name or a key: these are compared and hashed again and again."""

MAX_DIMENSIONS = 32
MAX_BITS = 63
"""Sizes, strides and keys fit the signed integers of every library that gets them."""

Tensor = npt.NDArray[Any]

_DTYPES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "BFloat16Storage": STORED_DTYPE,
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
_BOOKKEEPING_PACKAGES = {
    "argparse", "demucs", "lightning", "lightning_fabric", "omegaconf", "pathlib",
    "pytorch_lightning", "typing",
}  # fmt: skip
_BOOKKEEPING_NAMES = {
    "builtins": {"bool", "complex", "dict", "float", "int", "list", "set", "str", "tuple"},
    "collections": {"defaultdict", "Counter"},
    "fractions": {"Fraction"},
    "numpy": {"dtype", "ndarray"},
    "numpy.core.multiarray": {"scalar", "_reconstruct"},
    "numpy._core.multiarray": {"scalar", "_reconstruct"},
    "torch": {"Size", "device", "bfloat16", "bool", "float16", "float32", "float64", "int64"},
}


@dataclass(frozen=True)
class _Name:
    """A name in the pickle, which is never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True)
class _Storage:
    """Raw values that tensors are views of; only the machine creates them."""

    values: Tensor


class _Inert:
    """A placeholder for an object of a training framework."""


_MARK = _Inert()


def read_torch_file(content: bytes, path: Path) -> Any:
    """Returns the saved object: tensors as NumPy arrays in plain dicts, lists and tuples.

    Args:
        content: the bytes of the file.
        path: its name, for errors.

    Raises:
        ModelError: the file was not written by torch.save, is damaged, or names code.
    """
    if content.count(b"PK\x01\x02") > MAX_ENTRIES:  # the mark of an entry
        raise ModelError(f"{path} is a zip of more than {MAX_ENTRIES:,} files: save only tensors")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            pickles = [name for name in archive.namelist() if name.split("/")[1:] == ["data.pkl"]]
            if len(pickles) != 1:
                raise ModelError(
                    f"{path} is a zip file, but torch.save did not write it: check its name"
                )
            if any(e.compress_type != zipfile.ZIP_STORED for e in archive.infolist()):
                raise ModelError(
                    f"{path} is a compressed zip file, which torch.save never writes: save it again"
                )
            if archive.getinfo(pickles[0]).file_size > MAX_PICKLE_BYTES:
                raise ModelError(
                    f"the index of {path} is larger than {MAX_PICKLE_BYTES >> 20} MiB: save only "
                    "tensors"
                )
            # Entries that overlap would let a small file fill any memory.
            if sum(e.file_size for e in archive.infolist()) > len(content):
                raise zipfile.BadZipFile
            return _Machine(archive, pickles[0].removesuffix("/data.pkl")).run()
    except (zipfile.BadZipFile, EOFError):
        raise ModelError(f"{path} is truncated or damaged: download it again") from None
    except _CodeError as error:
        raise ModelError(
            f"{path} contains code ({error}) and is refused: save only tensors"
        ) from None
    except (
        ValueError, LookupError, TypeError, AttributeError, RuntimeError, OSError, ArithmeticError,
        struct.error,
    ) as error:  # fmt: skip
        cause = first_line(error) if isinstance(error, ValueError) else "its index is invalid"
        raise ModelError(f"{path} is damaged ({cause}): download it again") from None


class _CodeError(Exception):
    """The pickle contains a name that is not allowed."""


class _Machine:
    """The stack machine. Its values are str, bytes, numbers, containers, names and tensors."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        self.archive, self.root = archive, root
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, _Storage] = {}

    def run(self) -> Any:
        program = self.archive.read(f"{self.root}/data.pkl")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a damaged string literal may contain invalid escapes
            for count, (opcode, argument, _) in enumerate(pickletools.genops(program)):
                if opcode.name == "STOP":
                    return self.stack.pop()
                if count >= MAX_INSTRUCTIONS:
                    raise ValueError(f"its index has more than {MAX_INSTRUCTIONS:,} instructions")
                self.step(opcode.name, argument)
        raise ValueError("its index has no end")

    def step(self, op: str, argument: Any) -> None:
        push, pop = self.stack.append, self.stack.pop
        match op:
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                push(_MARK)
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                push({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[op])
            case "EMPTY_DICT" | "EMPTY_LIST" | "EMPTY_TUPLE" | "EMPTY_SET":
                push({"D": dict, "L": list, "T": tuple, "S": list}[op[6]]())
            case "TUPLE":
                push(tuple(self.pop_to_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                push(tuple(reversed([pop() for _ in range(int(op[-1]))])))
            case "BINPUT" | "LONG_BINPUT" | "PUT":
                self.memo[argument] = self.stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = self.stack[-1]
            case "BINGET" | "LONG_BINGET" | "GET":
                push(self.memo[argument])
            case "APPEND" | "SETITEM" | "APPENDS" | "SETITEMS" | "ADDITEMS":
                count = {"APPEND": 1, "SETITEM": 2}.get(op)
                items = [pop() for _ in range(count)][::-1] if count else self.pop_to_mark()
                _fill(self.stack[-1], items)
            case "GLOBAL":
                push(_known(_Name(*argument.split(" ", 1))))
            case "STACK_GLOBAL":
                name, module = pop(), pop()
                push(_known(_Name(_text(module), _text(name))))
            case "REDUCE" | "NEWOBJ":
                arguments = pop()
                push(self.create(pop(), arguments))
            case "BUILD":
                pop()  # attributes of a placeholder or of an OrderedDict
            case "BINPERSID":
                push(self.storage(*pop()))
            case _ if op.startswith(("BININT", "LONG", "BINFLOAT", "BINUNICODE", "SHORT_BIN")):
                push(argument)
            case _ if op in ("BINBYTES", "BINBYTES8", "BINSTRING"):
                push(argument)
            case _:
                raise ValueError(f"the instruction {op}, which torch.save never writes")

    def pop_to_mark(self) -> list[Any]:
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:
            at -= 1
        items = self.stack[at + 1 :]
        del self.stack[at:]
        return items

    def create(self, name: Any, arguments: Any) -> Any:
        """Returns the value that a call of ``name`` stands for."""
        if not isinstance(name, _Name):
            raise ValueError("a call of a value that is not a name")
        if name == _Name("collections", "OrderedDict"):
            return {}
        if name in (_Name("builtins", "dict"), _Name("builtins", "list"), _Name("builtins", "set")):
            return {} if name.name == "dict" else []
        if name == _Name("torch._utils", "_rebuild_parameter"):
            return arguments[0]
        if name == _Name("fractions", "Fraction"):
            return _fraction(*arguments)
        if name in _REBUILDERS:
            return _view(*arguments[:4])
        return _Inert()

    def storage(self, _: Any, kind: _Name, key: str, __: Any, elements: int) -> _Storage:
        """Returns the storage for a reference: ('storage', kind, key, device, elements)."""
        if _text(key) not in self.storages:
            if kind.name not in _DTYPES:
                raise ValueError(f"a storage of kind {kind.name}")
            dtype = np.dtype(_DTYPES[kind.name])
            entry = self.archive.getinfo(f"{self.root}/data/{key}")
            if entry.file_size != elements * dtype.itemsize:
                raise ValueError(f"storage {key} has {entry.file_size} bytes")
            values: Tensor = np.frombuffer(self.archive.read(entry), dtype)
            if kind.name == "BFloat16Storage":
                values = widen_bfloat16(values)
            self.storages[key] = _Storage(values)
        return self.storages[key]


_REBUILDERS = {
    _Name("torch._utils", "_rebuild_tensor"),
    _Name("torch._utils", "_rebuild_tensor_v2"),
}


def _known(name: _Name) -> _Name:
    """Returns the name if it is allowed.

    Raises:
        _CodeError: it is not.
    """
    module = "builtins" if name.module == "__builtin__" else name.module
    name = _Name(module, name.name)
    creates_data = name in _REBUILDERS or name in (
        _Name("torch._utils", "_rebuild_parameter"),
        _Name("collections", "OrderedDict"),
    )
    storage = module in ("torch", "torch.storage") and name.name.endswith("Storage")
    package = module.split(".")[0] in _BOOKKEEPING_PACKAGES
    listed = name.name in _BOOKKEEPING_NAMES.get(module, ())
    if name.name.isidentifier() and (creates_data or storage or package or listed):
        return name
    raise _CodeError(printable(f"{name.module}.{name.name}"))


def _text(value: Any) -> str:
    """Requires short text: other values could be nested too deeply to be hashed or shown."""
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise ValueError("a name that is not text, or is too long")
    return value


def _fraction(numerator: Any, denominator: Any = 1) -> Fraction:
    """Returns the fraction of two whole numbers, or of a text such as ``39/5``."""
    if isinstance(numerator, str):
        match = re.fullmatch(r"(\d{1,9})(?:/(\d{1,9}))?", numerator[:32], re.ASCII)
        numerator, denominator = (int(part or 1) for part in match.groups()) if match else (0, 0)
    if not all(type(n) is int and abs(n) < 1 << 63 for n in (numerator, denominator)):
        raise ValueError("a fraction that is not of two whole numbers")
    return Fraction(numerator, denominator)


def _fill(container: Any, items: list[Any]) -> None:
    if isinstance(container, dict):
        for key, value in zip(items[::2], items[1::2], strict=True):
            if _is_key(key):
                container[key] = value
    elif isinstance(container, list):
        container.extend(items)
    elif not isinstance(container, _Inert):
        raise ValueError(f"items for a {type(container).__name__}")


def _is_key(key: Any) -> bool:
    """Whether a key can name a tensor; others are bookkeeping, and may be costly to hash."""
    if isinstance(key, str):
        return len(key) <= MAX_TEXT
    return isinstance(key, int) and key.bit_length() <= MAX_BITS


def _view(storage: Any, offset: int, shape: Any, strides: Any) -> Tensor:
    """Returns a tensor as a view of its storage, after checking that it stays inside."""
    if not isinstance(storage, _Storage):
        raise ValueError("a tensor without a storage")
    if len(shape) > MAX_DIMENSIONS:
        raise ValueError(f"a tensor of {len(shape)} dimensions")
    for n in (offset, *shape, *strides):
        if type(n) is not int or n < 0 or n.bit_length() > MAX_BITS:
            raise ValueError("a tensor whose shape is not of whole numbers below 2^63")
    values = storage.values
    count = math.prod(shape)
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if count > values.size or (count and last >= values.size):
        raise ValueError(f"a tensor of shape {shape} reaches outside its storage")
    steps = [step * values.itemsize for step in strides]
    return np.lib.stride_tricks.as_strided(values[offset:], shape, steps, writeable=False)
