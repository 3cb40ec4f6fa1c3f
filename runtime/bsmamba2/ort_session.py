"""Loads a model into ONNX Runtime: the one place that knows its packages, devices and errors."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from typing import Any

from bsmamba2.array import Audio
from bsmamba2.errors import DeviceError, MissingExtra, ModelError
from bsmamba2.kernel import library
from bsmamba2.onnx_file import OnnxFile

_DISTRIBUTIONS = {"onnxruntime": "cpu", "onnxruntime-gpu": "gpu"}


def open_session(
    file: OnnxFile,
    device: str = "auto",
    weights: Mapping[str, Audio] | None = None,
    threads: int | None = None,
    kernel: bool = True,
) -> tuple[Any, str]:
    """An ``onnxruntime.InferenceSession`` of the model, and the device that it runs on.

    Args:
        file: the model, already read and checked.
        device: ``auto``, ``cpu`` or ``cuda[:N]``. ``auto`` takes a GPU where ONNX Runtime has one.
        weights: for a graph without weights, every initialiser by name.
        threads: of one run; None leaves the number to ONNX Runtime (all cores).
        kernel: whether the native kernel may take the scans, where it is there.

    Raises:
        MissingExtra: no ONNX Runtime is installed, or two that overwrite each other are.
        DeviceError: the device is not there.
        ModelError: ONNX Runtime refuses the model.
    """
    ort = import_onnxruntime()
    device, providers = _resolve_device(device, ort.get_available_providers())
    options = ort.SessionOptions()
    options.log_severity_level = 4  # errors are raised, and shown once
    options.use_deterministic_compute = True
    options.enable_mem_pattern = False
    options.intra_op_num_threads = threads or 0
    native = library() if kernel and device == "cpu" else None
    if native:
        # It takes the scans' nodes; without it their bodies of plain operators run.
        options.register_custom_ops_library(str(native))
    if file.wanting:
        if weights is None or any(name not in weights for name in file.wanting):
            raise ModelError(f"{file.path.name} has no weights: give a checkpoint in its place")
        values = [ort.OrtValue.ortvalue_from_numpy(weights[name]) for name in file.wanting]
        options.add_external_initializers(list(file.wanting), values)
    try:
        session = ort.InferenceSession(str(file.path), options, providers=providers)
    except Exception as error:  # the binding raises bare exceptions of many classes
        raise ModelError(f"ONNX Runtime refuses {file.path.name}: {first_line(error)}") from None
    if session.get_providers()[0] != _name(providers[0]):
        raise DeviceError(
            f"device {device} was asked for, but ONNX Runtime fell back to "
            f"{session.get_providers()[0]}: check driver, CUDA and cuDNN"
        )
    return session, device


def import_onnxruntime() -> Any:
    """The one ONNX Runtime that is installed.

    Raises:
        MissingExtra: none is, or two are, which leaves a mixture of both on the disk.
    """
    found = [name for name in _DISTRIBUTIONS if _installed(name)]
    if len(found) == 2:
        raise MissingExtra(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other; run: "
            'pip uninstall -y onnxruntime onnxruntime-gpu && pip install "bsmamba2[gpu]" '
            "(or [cpu])"
        )
    try:
        import onnxruntime
    except ImportError as error:
        reason = f" ({error})" if found else ""
        raise MissingExtra(
            f'no ONNX Runtime can be loaded{reason}; run: pip install "bsmamba2[cpu]", or '
            'pip install "bsmamba2[gpu]" for an NVIDIA GPU'
        ) from None
    return onnxruntime


def _installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _resolve_device(device: str, available: list[str]) -> tuple[str, list[Any]]:
    """The device by its full name, and what ONNX Runtime calls it."""
    kind, _, number = device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (
        number and not (kind == "cuda" and number.isdigit())
    ):
        raise DeviceError(f"device must be auto, cpu, cuda or cuda:N; got {device!r}")
    has_cuda = "CUDAExecutionProvider" in available
    if kind == "cpu" or (kind == "auto" and not has_cuda):
        return "cpu", ["CPUExecutionProvider"]
    if not has_cuda:
        raise DeviceError(
            f"device {device!r} needs ONNX Runtime for CUDA, which is not installed; run: "
            'pip uninstall -y onnxruntime && pip install "bsmamba2[gpu]"'
        )
    index = int(number or 0)
    cuda = ("CUDAExecutionProvider", {"device_id": index})
    return f"cuda:{index}", [cuda, "CPUExecutionProvider"]


def _name(provider: Any) -> str:
    return provider if isinstance(provider, str) else str(provider[0])


def first_line(error: Exception) -> str:
    """Of what ONNX Runtime raised, for a sentence of ours."""
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
