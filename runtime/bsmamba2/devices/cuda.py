"""The scan's CUDA kernels: where they are, and how to call them on GPU memory.

The kernels are files (``cuda_kernels``: machine code and PTX). The native library launches them
through the driver. ONNX Runtime calls the library as an operator; this module does the same for
any other owner of GPU memory, such as PyTorch.
"""

from __future__ import annotations

import ctypes
import json
from pathlib import Path

from bsmamba2.errors import DeviceError
from bsmamba2.formats.checkpoint import FIRST_MIXER
from bsmamba2.formats.manifest import Manifest

KINDS = {"fp32": 0, "fp16": 1, "bf16": 2}
"""Types of zxbcdt and y, with their numbers in the library."""
HEAD_DIM = 64
STATE_SIZES = (64, 128)
"""State sizes that have kernels."""
MOST_FEATURES = 1024
"""The widest rows that the kernel between blocks takes; they are a multiple of 8."""
SETTING = "bsmamba2.cuda_kernels"
"""Option of an ONNX Runtime session: the folder of the kernels. With it, the registered library
provides the operator on CUDA instead of the CPU."""

_POINTERS = (
    "zxbcdt", "conv_weight", "conv_bias", "dt_bias", "A_log", "D", "norm_weight", "conv_state",
    "ssm_state", "y", "conv_state_out", "ssm_state_out", "workspace",
)  # fmt: skip


class Call(ctypes.Structure):
    """One call of the scan, as ``runtime/native/cuda/call.h`` declares it.

    Tensors are addresses of contiguous GPU memory, with the shapes in ``docs/architecture.md``.
    zxbcdt and y have one of the types in :data:`KINDS`, all others are float32. An output whose
    address is 0 is not computed. If the workspace's address is 0, the library uses its own.
    """

    _fields_ = (
        ("batch", ctypes.c_int64),
        ("length", ctypes.c_int64),
        ("heads", ctypes.c_int32),
        ("conv_batch", ctypes.c_int32),
        ("ssm_batch", ctypes.c_int32),
        ("reverse", ctypes.c_int32),
        ("dt_columns", ctypes.c_int32),
        ("epsilon", ctypes.c_float),
        *((name, ctypes.c_void_p) for name in _POINTERS),
    )


def kernels() -> Path:
    """Returns the folder of the compiled kernels."""
    return Path(__file__).parent / "cuda_kernels"


def kernels_version() -> str:
    """Returns the SHA-256 of the source that the kernels were compiled from."""
    facts = json.loads((kernels() / "kernels.json").read_text(encoding="utf-8"))
    return str(facts["source_sha256"])


def has_kernels(manifest: Manifest) -> bool:
    """Returns whether there are kernels for the sizes of this model's scans."""
    shapes = manifest.initialisers
    try:
        (heads,), (inner,) = shapes[f"{FIRST_MIXER}A_log"], shapes[f"{FIRST_MIXER}norm.weight"]
        channels = shapes[f"{FIRST_MIXER}conv1d.weight"][0]
        features = shapes[f"{FIRST_MIXER}in_proj.weight"][1]
    except (KeyError, ValueError, IndexError):
        return False
    if features % 8 or features > MOST_FEATURES:
        return False
    return inner == heads * HEAD_DIM and (channels - inner) // 2 in STATE_SIZES


def load(library: Path) -> ctypes.CDLL:
    """Opens the native library and sets the folder of its kernels."""
    opened = ctypes.CDLL(str(library))
    opened.bsmamba2_cuda_kernels.argtypes = [ctypes.c_char_p]
    opened.bsmamba2_cuda_kernels.restype = None
    opened.bsmamba2_cuda_scan.argtypes = [
        ctypes.POINTER(Call), ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p,
        ctypes.c_size_t,
    ]  # fmt: skip
    opened.bsmamba2_cuda_release.argtypes = [ctypes.c_void_p]
    opened.bsmamba2_cuda_release.restype = None
    opened.bsmamba2_cuda_kernels(str(kernels()).encode())
    return opened


def scan(library: ctypes.CDLL, call: Call, kind: str, state_size: int, stream: int = 0) -> None:
    """Enqueues a call on a CUDA stream and returns; as usual in CUDA, errors are reported later.

    Args:
        library: from :func:`load`.
        call: sizes and addresses.
        kind: type of zxbcdt and y, one of :data:`KINDS`.
        state_size: N, one of :data:`STATE_SIZES`; the head dimension is 64.
        stream: a CUstream as a number; 0 is the default stream of the current context.

    Raises:
        DeviceError: there is no driver, the GPU has no kernels, or a launch failed.
    """
    if kind not in KINDS:
        raise DeviceError(f"kind must be one of {', '.join(KINDS)}; got {kind!r}")
    if state_size not in STATE_SIZES:
        raise DeviceError(f"state_size must be one of {STATE_SIZES}; got {state_size}")
    sentence = ctypes.create_string_buffer(500)
    if library.bsmamba2_cuda_scan(
        ctypes.byref(call), KINDS[kind], state_size, stream, sentence, len(sentence)
    ):
        raise DeviceError(sentence.value.decode(errors="replace"))


def release(library: ctypes.CDLL, stream: int) -> None:
    """Frees the workspace that scans on a stream used; call it before the stream is destroyed."""
    library.bsmamba2_cuda_release(stream)
