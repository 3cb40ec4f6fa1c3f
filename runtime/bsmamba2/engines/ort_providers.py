"""ONNX Runtime's providers: which can run here, and with which options."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

from bsmamba2.devices.device import Device, missing_card
from bsmamba2.devices.libraries import missing_library, open_library
from bsmamba2.engines.ort_import import gpu_install_command, import_onnxruntime
from bsmamba2.errors import MissingExtra
from bsmamba2.files.cache import cache_folder
from bsmamba2.formats.manifest import Manifest
from bsmamba2.installation import install_command

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
"""ONNX Runtime's provider for each kind of device."""


def providers(
    device: Device, manifest: Manifest, graphs: bool = False, stream: int = 0
) -> list[Any]:
    """Returns the device's provider with its options, then those for shape arithmetic.

    Args:
        device: where the model runs.
        manifest: the model.
        graphs: whether runs may be recorded as CUDA graphs.
        stream: a CUDA stream for all work of the session; 0 if it makes its own.
    """
    common = {"device_id": str(device.index)}
    # Float32 means float32: TF32 has only three digits. For speed there are bf16 and fp16.
    cuda = common | {"use_tf32": "0"}
    if graphs:
        cuda["enable_cuda_graph"] = "1"
    if stream:
        cuda["user_compute_stream"] = str(stream)
    chosen: list[Any] = []
    if device.kind == "tensorrt":
        chosen.append((PROVIDERS["tensorrt"], common | _tensorrt_options(manifest)))
    if device.kind != "cpu":
        chosen.append((PROVIDERS["cuda"], cuda))
    return [*chosen, PROVIDERS["cpu"]]


def _tensorrt_options(manifest: Manifest) -> dict[str, str]:
    """Returns options with which an engine is built once, not in every process and for each length.

    Engines and timings are kept in the user's cache. The profile covers every length of a chunk, so
    the last chunk of a song does not build another engine. (TF32 has no option here;
    docs/deploy.md explains how to switch it off.)
    """
    folder = str(cache_folder() / "tensorrt")
    options = {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": folder,
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": folder,
    }
    if manifest.streaming or manifest.fixed_length:
        return options
    name, shortest, longest = _input(manifest)
    shapes = {"min": shortest, "opt": longest, "max": longest}
    return options | {
        f"trt_profile_{kind}_shapes": f"{name}:{'x'.join(map(str, shape))}"
        for kind, shape in shapes.items()
    }


def _input(manifest: Manifest) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
    """Returns the name of a graph's input, and its shapes for the shortest and longest chunk."""
    channels = manifest.channels
    if manifest.io == "waveform":
        return "waveform", (1, channels, manifest.n_fft // 2 + 1), (1, channels, manifest.chunk)
    bins = manifest.bins
    shortest, longest = manifest.n_fft // 2 // manifest.hop + 1, manifest.chunk // manifest.hop + 1
    return "spectrum", (1, channels, shortest, bins, 2), (1, channels, longest, bins, 2)


def preload(ort: Any) -> None:
    """Loads CUDA and cuDNN from the packages of [gpu]; discards what ONNX Runtime prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        ort.preload_dlls()


def _missing_for_cpu(device: Device) -> str | None:
    return None


def _missing_for_cuda(device: Device) -> str | None:
    """See :data:`bsmamba2.devices.device.Backend`."""
    ort = import_onnxruntime()
    missing = missing_card(device, getattr(ort, "cuda_version", None) or "")
    if missing is not None:
        return missing
    if PROVIDERS["cuda"] not in ort.get_available_providers():
        return f"ONNX Runtime for NVIDIA cards is not installed; run: {gpu_install_command()}"
    preload(ort)
    name = missing_library(Path(*ort.__path__, "capi", "libonnxruntime_providers_cuda.so"))
    if name:
        return f"{name} of CUDA or cuDNN is not found; run: {install_command('gpu')}"
    return None


def _missing_for_tensorrt(device: Device) -> str | None:
    """See :data:`bsmamba2.devices.device.Backend`."""
    missing = _missing_for_cuda(device)
    if missing is None and not _load_tensorrt():
        return (
            "ONNX Runtime's TensorRT provider needs TensorRT 10, which is not installed; run: "
            f"{install_command('tensorrt')}"
        )
    return missing


def _load_tensorrt() -> bool:
    """Loads the library of TensorRT 10; returns whether there is one.

    A package of Python keeps it in a folder of its own, where only the package itself finds it.
    """
    # Imported here, because nothing else of this module needs it.
    from bsmamba2.engines.tensorrt_import import import_tensorrt

    with contextlib.suppress(MissingExtra):
        import_tensorrt("tensorrt")
    return open_library("libnvinfer.so.10", "nvinfer_10.dll") is not None


# Best first. TensorRT takes minutes to build an engine, so it is last: auto never reaches it.
BACKENDS = (
    ("cuda", _missing_for_cuda),
    ("cpu", _missing_for_cpu),
    ("tensorrt", _missing_for_tensorrt),
)
