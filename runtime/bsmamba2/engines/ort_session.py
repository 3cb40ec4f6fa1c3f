"""Loads models into ONNX Runtime; what is known of its sessions, options and errors is here."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from bsmamba2 import errors
from bsmamba2.audio.array import Audio
from bsmamba2.devices import capture, cuda, nvidia, products
from bsmamba2.devices.device import CPU, Device
from bsmamba2.devices.kernel import instruction_set, library
from bsmamba2.engines.ort_import import import_onnxruntime
from bsmamba2.engines.ort_providers import PROVIDERS, preload, providers
from bsmamba2.engines.placement import RECORD, require_placement
from bsmamba2.errors import DeviceError, ModelError
from bsmamba2.files.hashing import file_sha256
from bsmamba2.formats.manifest import Manifest
from bsmamba2.formats.onnx_file import OnnxFile
from bsmamba2.installation import install_command, version

log = logging.getLogger("bsmamba2")


def open_session(
    file: OnnxFile,
    device: Device = CPU,
    weights: Mapping[str, Audio] | None = None,
    threads: int | None = None,
    kernel: bool = True,
    graphs: bool = False,
    speed: str = products.DEFAULT_SPEED,
    stream: int = 0,
) -> Any:
    """Loads the model into an ``onnxruntime.InferenceSession``.

    Args:
        file: the model, already read and checked.
        device: where it runs; nothing but shape arithmetic may run elsewhere.
        weights: every initialiser by name, for a graph without weights. On the CPU the session
            computes with these arrays and holds no copy, so several sessions can share them.
        threads: threads of one run. None: ONNX Runtime's default, all cores.
        kernel: whether the native kernel may run the scans, if it is installed.
        graphs: whether runs may be recorded as CUDA graphs by a caller who binds their memory
            (:mod:`bsmamba2.engines.ort_binding`); ``BSMAMBA2_CUDA_GRAPH=off`` forbids it.
        speed: which products the kernel uses on a CPU, see :mod:`bsmamba2.devices.products`.
        stream: on a card, a CUDA stream for all work of the session; 0 if it makes its own.

    Raises:
        MissingExtra: no usable ONNX Runtime is installed.
        DeviceError: the device is absent, or part of the model would run elsewhere.
        ModelError: ONNX Runtime refuses the model.
    """
    ort = import_onnxruntime()
    if device.kind == "cpu" and file.manifest.precision == "bf16":
        raise DeviceError(
            f"{file.path.name} computes in bf16, which ONNX Runtime cannot do on a CPU: use a GPU, "
            "or export the model with precision='fp32'"
        )
    if device.kind != "cpu":
        preload(ort)
    options = ort.SessionOptions()
    options.log_severity_level = 4  # errors are raised; the log would repeat them
    # On CUDA this would send large means to slower reductions of cuDNN.
    options.use_deterministic_compute = device.kind == "cpu"
    options.enable_mem_pattern = False
    options.intra_op_num_threads = threads or 0
    options.add_session_config_entry(RECORD, "1")
    if kernel:
        options.add_session_config_entry(products.SETTING, speed)
        _register_kernel(options, device, file.manifest)
        if device.kind == "cpu" and products.products(speed) != "float32":
            _create_pool()
            options.add_session_config_entry("session.use_env_allocators", "1")
    poured = _pour(ort, options, file, weights)
    graphs = graphs and device.kind == "cuda" and os.environ.get("BSMAMBA2_CUDA_GRAPH") != "off"
    in_place = device.kind == "cpu" and _has_plain_weights(file.manifest)
    if in_place:
        _use_weights_in_place(options, file.missing_weights, poured)
    with capture.using(device):
        session = _create(ort, file, options, device, graphs, in_place, stream)
    provider = PROVIDERS[device.kind]
    if session.get_providers()[0] != provider:
        raise DeviceError(
            f"device {device} was chosen, but ONNX Runtime could not load its {provider}: run "
            f"{install_command('gpu')}, which installs CUDA and cuDNN, or use device='cpu'"
        )
    require_placement(session, device, provider)
    if in_place:
        weakref.finalize(session, poured.clear)  # keeps the weights as long as the session exists
    return session


def require_float32(file: OnnxFile, inputs: Iterable[Any], outputs: Iterable[Any]) -> None:
    """Requires inputs and outputs of a session to be tensors of float32.

    Raises:
        ModelError: one has another type; the message names it.
    """
    for value in (*inputs, *outputs):
        if value.type != "tensor(float)":
            raise ModelError(
                f"{file.path.name} must take and return tensors of float32; "
                f"{errors.printable(value.name)} is a {errors.printable(value.type)}: export it "
                "again"
            )


def require_shape(values: Any, shape: tuple[int, ...], name: str) -> None:
    """Requires a model to return what its manifest says.

    Raises:
        ModelError: the result has another shape.
    """
    if values.shape != shape:
        raise ModelError(
            f"{name} must return {shape}, as its manifest says; got {values.shape}: export it again"
        )


def software() -> dict[str, str]:
    """Returns every version that a model's output may depend on, by name."""
    native = library()
    return {
        "bsmamba2": version(),
        "onnxruntime": import_onnxruntime().__version__,
        "kernel": file_sha256(native) if native else "plain operators",
        "cuda_kernels": cuda.kernels_version(),
        "instructions": instruction_set() or "",
    }


def first_line(error: Exception) -> str:
    """Returns the first line of an error of ONNX Runtime, without its code."""
    line = errors.first_line(error, limit=300)
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", line)


def _register_kernel(options: Any, device: Device, manifest: Manifest) -> None:
    """Lets the native library run the scans; without it, plain operators run them."""
    native = library() if _has_kernels(device, manifest) else None
    if native is None:
        return
    if device.kind == "cuda":
        options.add_session_config_entry(cuda.SETTING, str(cuda.kernels()))
    try:
        options.register_custom_ops_library(str(native))
    except Exception as error:  # the binding raises bare exceptions of many classes
        raise DeviceError(
            f"the kernel cannot be loaded ({first_line(error)}): see bsmamba2 doctor, or set "
            "BSMAMBA2_KERNEL=off, which runs plain operators instead and is slower"
        ) from None


@functools.cache
def _create_pool() -> None:
    """Creates a pool of memory for all sessions of this process, which grows by what is needed.

    The kernels pack a second copy of the weights. By default ONNX Runtime doubles a session's
    memory each time that it grows, and what this wastes is more than the packed weights take.
    """
    ort = import_onnxruntime()
    kinds = ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT
    as_needed = ort.OrtArenaCfg({"arena_extend_strategy": 1})
    ort.create_and_register_allocator(ort.OrtMemoryInfo("Cpu", *kinds), as_needed)


def _has_kernels(device: Device, manifest: Manifest) -> bool:
    """Whether the native library has kernels for this model on this device."""
    if device.kind == "cuda":
        return cuda.has_kernels(manifest) and nvidia.compute_capability(device.index) >= (8, 0)
    return device.kind == "cpu"


def _pour(ort: Any, options: Any, file: OnnxFile, weights: Mapping[str, Audio] | None) -> list[Any]:
    """Adds a graph's missing initialisers; returns them as values of ONNX Runtime."""
    if not file.missing_weights:
        return []
    if weights is None or any(name not in weights for name in file.missing_weights):
        raise ModelError(f"{file.path.name} has no weights: use a checkpoint instead")
    values = [ort.OrtValue.ortvalue_from_numpy(weights[name]) for name in file.missing_weights]
    options.add_external_initializers(list(file.missing_weights), values)
    return values


def _has_plain_weights(manifest: Manifest) -> bool:
    """Whether the graph multiplies with its initialisers as they are stored."""
    return manifest.precision == manifest.weights == "fp32"


def _use_weights_in_place(options: Any, names: Sequence[str], values: Sequence[Any]) -> None:
    """Lets products read the weights in place, so that sessions can share one copy.

    By default ONNX Runtime folds the transpose before a product into a second array, and packs
    that array for the product, so every session holds a copy of all weights. Without folding
    and packing the transpose becomes an attribute of the product, which is as fast. The last bits
    then depend on the number of threads: results agree to about 119 dB.
    """
    for name, value in zip(names, values, strict=True):
        options.add_initializer(name, value)
    options.add_session_config_entry("session.disable_prepacking", "1")


def _create(
    ort: Any,
    file: OnnxFile,
    options: Any,
    device: Device,
    graphs: bool,
    in_place: bool,
    stream: int = 0,
) -> Any:
    """Creates the session; without CUDA graphs if ONNX Runtime refuses the model with them."""
    try:
        with _quiet(ort, device):
            return ort.InferenceSession(
                str(file.path),
                options,
                providers=providers(device, file.manifest, graphs, stream),
                disabled_optimizers=["ConstantFolding"] if in_place else [],
                enable_fallback=0,
            )
    except Exception as error:  # the binding raises bare exceptions of many classes
        reason = first_line(error)
    if not graphs:
        raise ModelError(f"ONNX Runtime refuses {file.path.name}: {reason}")
    session = _create(ort, file, options, device, False, in_place, stream)
    log.warning("CUDA graphs are not used, ONNX Runtime refuses them: %s", reason)
    return session


@contextlib.contextmanager
def _quiet(ort: Any, device: Device) -> Iterator[None]:
    """Keeps ONNX Runtime's log about providers off the terminal: our own checks report problems."""
    if device.kind == "cpu":
        yield
        return
    ort.set_default_logger_severity(4)
    try:
        yield
    finally:
        ort.set_default_logger_severity(2)  # the default; there is no way to read the old value
