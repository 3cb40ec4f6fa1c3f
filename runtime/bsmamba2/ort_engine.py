"""Runs a model in ONNX Runtime, on the CPU or on a GPU."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from typing import Any

import numpy as np

from bsmamba2 import stft
from bsmamba2.array import Audio
from bsmamba2.errors import DeviceError, MissingExtra, ModelError
from bsmamba2.kernel import library
from bsmamba2.manifest import Manifest
from bsmamba2.onnx_file import OnnxFile

_DISTRIBUTIONS = {"onnxruntime": "cpu", "onnxruntime-gpu": "gpu"}


class OrtEngine:
    """A model loaded into an ONNX Runtime session; may be shared between threads.

    Args:
        file: the model, already read and checked.
        device: ``auto``, ``cpu`` or ``cuda[:N]``. ``auto`` takes a GPU where ONNX Runtime has one.
        weights: for a graph without weights, every initialiser by name.
        manifest: in place of the file's own, where a checkpoint was poured in.
        threads: of one run; None leaves the number to ONNX Runtime (all cores).
        kernel: whether the native kernel may take the scans, where it is there.

    Raises:
        MissingExtra: no ONNX Runtime is installed, or two that overwrite each other are.
        DeviceError: the device is not there.
        ModelError: ONNX Runtime refuses the model.
    """

    def __init__(
        self,
        file: OnnxFile,
        device: str = "auto",
        weights: Mapping[str, Audio] | None = None,
        manifest: Manifest | None = None,
        threads: int | None = None,
        kernel: bool = True,
    ) -> None:
        ort = import_onnxruntime()
        self.manifest = manifest or file.manifest
        self.device, providers = _resolve_device(device, ort.get_available_providers())
        options = ort.SessionOptions()
        options.log_severity_level = 4  # errors are raised, and shown once
        options.use_deterministic_compute = True
        options.intra_op_num_threads = threads or 0
        native = library() if kernel and self.device == "cpu" else None
        if native:
            # It takes the scans' nodes; without it their bodies of plain operators run.
            options.register_custom_ops_library(str(native))
        if file.wanting:
            if weights is None or any(name not in weights for name in file.wanting):
                raise ModelError(f"{file.path.name} has no weights: give a checkpoint in its place")
            values = [ort.OrtValue.ortvalue_from_numpy(weights[name]) for name in file.wanting]
            options.add_external_initializers(list(file.wanting), values)
        try:
            self._session = ort.InferenceSession(str(file.path), options, providers=providers)
        except Exception as error:  # the binding raises bare exceptions of many classes
            raise ModelError(
                f"ONNX Runtime refuses {file.path.name}: {_first_line(error)}"
            ) from None
        if self._session.get_providers()[0] != _name(providers[0]):
            raise DeviceError(
                f"device {self.device} was asked for, but ONNX Runtime fell back to "
                f"{self._session.get_providers()[0]}: check driver, CUDA and cuDNN"
            )
        self._input = self._session.get_inputs()[0].name

    def run(self, chunk: Audio) -> Audio:
        """See :meth:`bsmamba2.engine.Engine.run`."""
        manifest, samples = self.manifest, chunk.shape[-1]
        if manifest.io == "waveform":
            short = max(0, manifest.n_fft // 2 + 1 - samples)  # the graph reflects, and needs these
            return self._call(np.pad(chunk, [(0, 0), (0, short)]))[..., :samples]
        mixture = stft.stft(chunk, manifest.n_fft, manifest.hop)
        return stft.istft(self._call(mixture), manifest.n_fft, manifest.hop, samples)

    def run_spectrum(self, mixture: Audio) -> Audio:
        """The graph itself: (batch, channels, frames, bins, 2) to (batch, stems, …)."""
        return self._run(mixture)

    def _call(self, values: Audio) -> Audio:
        out: Audio = self._run(values[None])[0]
        return out

    def _run(self, values: Audio) -> Audio:
        try:
            out: Audio = self._session.run(None, {self._input: values})[0]
        except Exception as error:  # as above
            raise ModelError(f"{self.manifest.name} failed to run: {_first_line(error)}") from None
        return out


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


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
