"""Loads a model into ONNX Runtime: the one place that knows its packages, devices and errors."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bsmamba2 import errors
from bsmamba2.audio.array import Audio
from bsmamba2.devices import cuda, nvidia
from bsmamba2.devices.device import Device, choose, lacking_card
from bsmamba2.devices.kernel import instruction_set, library
from bsmamba2.devices.libraries import missing_library, open_library
from bsmamba2.engines.placement import RECORD, require_placement
from bsmamba2.errors import DeviceError, MissingExtra, ModelError
from bsmamba2.files.hashing import file_sha256
from bsmamba2.formats.manifest import Manifest
from bsmamba2.formats.onnx_file import OnnxFile

log = logging.getLogger("bsmamba2")

DISTRIBUTIONS = {"onnxruntime": "cpu", "onnxruntime-gpu": "gpu"}
"""The packages that hold an ONNX Runtime, and the extras that install them."""

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
"""What ONNX Runtime calls what runs each kind of device."""


def open_session(
    file: OnnxFile,
    device: str = "auto",
    weights: Mapping[str, Audio] | None = None,
    threads: int | None = None,
    kernel: bool = True,
    graphs: bool = False,
) -> tuple[Any, str]:
    """An ``onnxruntime.InferenceSession`` of the model, and the device that it runs on.

    Args:
        file: the model, already read and checked.
        device: ``auto``, ``cpu``, ``cuda[:N]`` or ``tensorrt[:N]``. ``auto`` takes a GPU where
            there is one and ONNX Runtime is made for it.
        weights: for a graph without weights, every initialiser by name.
        threads: of one run; None leaves the number to ONNX Runtime (all cores).
        kernel: whether the native kernel may take the scans, where it is there.
        graphs: whether runs may be recorded as CUDA graphs, by whoever binds their memory
            (:mod:`bsmamba2.ort_binding`); ``BSMAMBA2_CUDA_GRAPH=off`` says no.

    Raises:
        MissingExtra: no ONNX Runtime is installed, or two that overwrite each other are.
        DeviceError: the device is not there, or part of the model would run elsewhere.
        ModelError: ONNX Runtime refuses the model.
    """
    ort = import_onnxruntime()
    place = choose(device, BACKENDS)
    if place.kind == "cpu" and file.manifest.precision == "bf16":
        raise DeviceError(
            f"{file.path.name} computes in bf16, which CPUs have no products for: use a GPU, or "
            "export it with --precision fp32"
        )
    options = ort.SessionOptions()
    options.log_severity_level = 4  # errors are raised, and shown once
    options.use_deterministic_compute = True
    options.enable_mem_pattern = False
    options.intra_op_num_threads = threads or 0
    options.add_session_config_entry(RECORD, "1")
    native = library() if kernel and _has_kernels(place, file.manifest) else None
    if native:
        # It takes the scans' nodes; without it their bodies of plain operators run.
        if place.kind == "cuda":
            options.add_session_config_entry(cuda.SETTING, str(cuda.kernels()))
        try:
            options.register_custom_ops_library(str(native))
        except Exception as error:  # the binding raises bare exceptions of many classes
            raise DeviceError(
                f"the kernel cannot be loaded ({first_line(error)}): see bsmamba2 doctor, or set "
                "BSMAMBA2_KERNEL=off, which runs plain operators in its place, slower"
            ) from None
    if file.missing_weights:
        if weights is None or any(name not in weights for name in file.missing_weights):
            raise ModelError(f"{file.path.name} has no weights: give a checkpoint in its place")
        values = [ort.OrtValue.ortvalue_from_numpy(weights[name]) for name in file.missing_weights]
        options.add_external_initializers(list(file.missing_weights), values)
    graphs = graphs and place.kind == "cuda" and os.environ.get("BSMAMBA2_CUDA_GRAPH") != "off"
    session = _create(ort, file, options, place, graphs)
    provider = PROVIDERS[place.kind]
    if session.get_providers()[0] != provider:
        raise DeviceError(
            f"device {place} was chosen, but ONNX Runtime could not load its {provider}: run "
            'pip install -U "bsmamba2[gpu]", which brings CUDA and cuDNN, or use --device cpu'
        )
    require_placement(session, place, provider)
    return session, str(place)


def _create(ort: Any, file: OnnxFile, options: Any, place: Device, graphs: bool) -> Any:
    """The session; without CUDA graphs where ONNX Runtime refuses the model for their sake."""
    try:
        with _quiet(ort, place):
            return ort.InferenceSession(
                str(file.path), options, providers=_providers(place, graphs), enable_fallback=0
            )
    except Exception as error:  # the binding raises bare exceptions of many classes
        reason = first_line(error)
    if not graphs:
        raise ModelError(f"ONNX Runtime refuses {file.path.name}: {reason}")
    session = _create(ort, file, options, place, graphs=False)
    log.warning("CUDA graphs are not used, ONNX Runtime refuses them: %s", reason)
    return session


def import_onnxruntime() -> Any:
    """The one ONNX Runtime that is installed.

    Raises:
        MissingExtra: none is, or two are, which leaves a mixture of both on the disk.
    """
    found = [name for name in DISTRIBUTIONS if _installed(name)]
    if len(found) == 2:
        raise MissingExtra(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other; run: "
            f"{_install_anew()}"
        )
    # Since 1.29 it reports what it runs to its makers, model names included, unless it is told not
    # to before it is loaded. Nobody is asked here, so nobody is reported on.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        reason = f" ({error})" if found else ""
        raise MissingExtra(f"no ONNX Runtime can be loaded{reason}; run: {_install()}") from None
    if not hasattr(onnxruntime, "InferenceSession"):
        # What pip leaves where two lay over each other and one was taken away.
        raise MissingExtra(
            f"the ONNX Runtime is damaged, its files are missing; run: {_install_anew()}"
        )
    if not hasattr(onnxruntime.InferenceSession, "get_provider_graph_assignment_info"):
        package = found[0] if found else "onnxruntime"
        raise MissingExtra(
            f"ONNX Runtime {onnxruntime.__version__} is too old; run: pip install -U "
            f'"{package}>=1.30"'
        )
    onnxruntime.disable_telemetry_events()  # in case somebody else loaded it before
    return onnxruntime


def _install() -> str:
    """The line that installs the ONNX Runtime for this machine."""
    driver = nvidia.driver()
    return f'pip install "bsmamba2[{"gpu" if driver and driver.cards else "cpu"}]"'


def _install_anew() -> str:
    return f"pip uninstall -y {' '.join(DISTRIBUTIONS)} && {_install()}"


def software() -> dict[str, str]:
    """Every version that a model's output may depend on, by name."""
    native = library()
    return {
        "bsmamba2": importlib.metadata.version("bsmamba2") if _installed("bsmamba2") else "",
        "onnxruntime": import_onnxruntime().__version__,
        "kernel": file_sha256(native) if native else "plain operators",
        "cuda_kernels": cuda.kernels_version(),
        "instructions": instruction_set() or "",
    }


def _installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _has_kernels(device: Device, manifest: Manifest) -> bool:
    """Whether the native library has kernels for this model there."""
    if device.kind == "cuda":
        return cuda.has_kernels(manifest) and nvidia.compute_capability(device.index) >= (8, 0)
    return device.kind == "cpu"


def _lacking_cpu(device: Device) -> str | None:
    return None


def _lacking_cuda(device: Device) -> str | None:
    """See :data:`bsmamba2.devices.device.Backend`."""
    ort = import_onnxruntime()
    lacking = lacking_card(device, getattr(ort, "cuda_version", None) or "")
    if lacking is not None:
        return lacking
    if PROVIDERS["cuda"] not in ort.get_available_providers():
        return (
            "the ONNX Runtime for NVIDIA cards is not installed; run: "
            'pip uninstall -y onnxruntime && pip install "bsmamba2[gpu]"'
        )
    _preload(ort)
    missing = missing_library(Path(*ort.__path__, "capi", "libonnxruntime_providers_cuda.so"))
    if missing:
        return f'{missing} of CUDA or cuDNN is not found; run: pip install "bsmamba2[gpu]"'
    return None


def _lacking_tensorrt(device: Device) -> str | None:
    """See :data:`bsmamba2.devices.device.Backend`."""
    lacking = _lacking_cuda(device)
    if lacking is None and not open_library("libnvinfer.so.10", "nvinfer_10.dll"):
        return (
            "ONNX Runtime's TensorRT provider needs TensorRT 10, which is not installed; run: "
            'pip install "tensorrt-cu13>=10,<11"'
        )
    return lacking


# Best first. TensorRT is never chosen unasked: it takes minutes to build an engine.
BACKENDS = (("cuda", _lacking_cuda), ("cpu", _lacking_cpu), ("tensorrt", _lacking_tensorrt))


def _providers(device: Device, graphs: bool) -> list[Any]:
    """The device's provider, and behind it what shape arithmetic may fall to."""
    kinds = {"cpu": (), "cuda": ("cuda",), "tensorrt": ("tensorrt", "cuda")}[device.kind]
    options = {"device_id": str(device.index)} | ({"enable_cuda_graph": "1"} if graphs else {})
    # Float32 means float32: TF32 has three digits. Who wants speed exports bf16 or fp16. The
    # provider of TensorRT has no such option: docs/deploy.md says what switches TF32 off there.
    exact = {"cuda": {"use_tf32": "0"}}
    return [
        *((PROVIDERS[kind], options | exact.get(kind, {})) for kind in kinds),
        PROVIDERS["cpu"],
    ]


@contextlib.contextmanager
def _quiet(ort: Any, device: Device) -> Iterator[None]:
    """Keeps what ONNX Runtime logs of a provider off the terminal: it is asked and told instead."""
    if device.kind == "cpu":
        yield
        return
    ort.set_default_logger_severity(4)
    try:
        yield
    finally:
        ort.set_default_logger_severity(2)  # as it was; there is no way to ask


def _preload(ort: Any) -> None:
    """Loads CUDA and cuDNN from the packages of [gpu]; what it prints comes as our own sentence."""
    with contextlib.redirect_stdout(io.StringIO()):
        ort.preload_dlls()


def first_line(error: Exception) -> str:
    """The first line of an error of ONNX Runtime, without its prefix."""
    line = errors.first_line(error, limit=300)
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", line)
