"""The runtime's engines on a GPU: ONNX Runtime and TensorRT, each in a separate process.

The task for :mod:`benchmarks.gpu.engine` holds:

- ``what`` and ``device``;
- ``shapes``: pairs of seconds per chunk and chunks per run;
- ``song_seconds``: 0 for no song;
- ``expected``: the folder of :meth:`benchmarks.gpu.network.Truth.write`;
- for ONNX Runtime ``file``, ``weights``, ``kernel`` and ``library``;
- for TensorRT ``engine``, or ``file``, ``weights`` and the arguments of ``build_engine``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu import rows
from benchmarks.gpu.chip import Clock
from benchmarks.gpu.network import RESERVED_SECONDS, Truth
from benchmarks.gpu.rows import Rows, Task, describe_runtime_error, is_installed
from benchmarks.gpu.song import SONG_SECONDS
from bsmamba2.devices import cuda
from bsmamba2.errors import Error
from bsmamba2_network import BSMamba2

ENGINE = "benchmarks.gpu.engine"
CHUNK = ((8, 1),)
SHAPES = ((1, 1), (4, 1), (8, 1), (1, 16), (16, 1), (8, 4), (8, 16))
"""Seconds per chunk and chunks per run, smallest first, because memory is the peak so far."""
ENGINE_SECONDS = 60
"""The time limit for one engine."""
BUILD_SECONDS, COMPILE_SECONDS = 180, 40
"""The time limit for an engine that TensorRT builds first; time kept for ``torch.compile``."""


@dataclass(frozen=True)
class Form:
    """One way to deploy a model in ONNX Runtime."""

    precision: str
    io: str
    scan: str
    """``our kernel``, ``target ort`` or ``plain operators``."""
    graph: str
    """``on`` if repeated shapes are replayed as CUDA graphs, else ``off``."""
    shapes: tuple[tuple[float, int], ...] = CHUNK
    song: bool = False

    def file(self, preset: str, graphs: Path | None) -> Path | None:
        """Returns the path of its graph: shipped, or written by ``graphs.py``; None if missing."""
        target = "ort" if self.scan == "target ort" else "portable"
        if (target, self.precision) == ("portable", "fp32"):
            suffix = "-waveform" if self.io == "waveform" else ""
            return cuda.kernels().parents[1] / "models" / "graphs" / f"{preset}{suffix}.onnx"
        path = graphs and graphs / graph_name(preset, target, self.precision, self.io)
        return path if path and path.exists() else None


def graph_name(preset: str, target: str, precision: str, io: str) -> str:
    """Returns the file name of a graph that ``graphs.py`` writes."""
    return f"{preset}-{target}-{precision}-{io}.onnx"


FORMS = (
    Form("bf16", "waveform", "our kernel", "on", song=True),
    Form("bf16", "waveform", "our kernel", "off", SHAPES, song=True),
    Form("fp32", "waveform", "our kernel", "on", song=True),
    Form("bf16", "spectrum", "our kernel", "on", song=True),
    Form("bf16", "waveform", "target ort", "on", song=True),
    Form("bf16", "waveform", "target ort", "off", ((8, 1), (8, 4))),
    Form("fp32", "waveform", "our kernel", "off", ((8, 1), (8, 4))),
    Form("fp32", "waveform", "target ort", "on"),
    Form("bf16", "waveform", "plain operators", "off"),
    Form("fp32", "waveform", "plain operators", "off"),
    Form("bf16", "spectrum", "our kernel", "off", ((8, 1), (8, 4))),
    Form("fp32", "spectrum", "our kernel", "off"),
    Form("fp32", "spectrum", "target ort", "off"),
)
"""The most important first."""


@dataclass(frozen=True)
class Engines:
    """The settings shared by the measurements of all engines."""

    preset: str
    folder: Path
    """For the weights, the stems of noise, and built engines."""
    graphs: Path | None
    """The folder that ``graphs.py`` wrote."""
    library: Path
    device: str = "cuda"
    song_seconds: float = SONG_SECONDS

    def prepare(self, net: BSMamba2, truth: Truth) -> None:
        """Writes the files that the processes read."""
        net.save(self.folder / "weights.safetensors")
        truth.write(self.folder, {seconds for seconds, _ in SHAPES})

    def task(self, what: str, **changes: Any) -> Task:
        weights = str(self.folder / "weights.safetensors")
        return {"what": what, "device": self.device, "expected": str(self.folder),
                "weights": weights, "library": str(self.library), **changes}  # fmt: skip

    def onnxruntime(self, form: Form, seconds: float) -> Rows:
        """Measures one form."""
        what = f"ONNX Runtime, {form.scan}, {form.precision}, {form.io}"
        file = form.file(self.preset, self.graphs)
        if file is None:
            note = "python -m benchmarks.gpu.graphs FOLDER writes its graph, for --graphs FOLDER"
            return [{"what": what, "graph": form.graph, "note": note}]
        task = self.task(
            what, graph=form.graph, file=str(file), kernel=form.scan == "our kernel",
            shapes=form.shapes, song_seconds=self.song_seconds * form.song,
        )  # fmt: skip
        return rows.run_process(ENGINE, task, seconds, BSMAMBA2_CUDA_GRAPH=form.graph)

    def tensorrt(self, backend: str, precision: str, plugin: bool, seconds: float) -> Rows:
        """Measures an engine that is built first, for this machine's GPU."""
        what = f"{backend}, {precision}{', plugin' * plugin}"
        file = Form(precision, "waveform", "", "off").file(self.preset, self.graphs)
        if file is None or not all(map(is_installed, BUILDER)):
            return [{"what": what, "note": "bsmamba2 build-engine builds one, for --engine PATH"}]
        task = self.task(
            what, device="tensorrt", file=str(file), backend=backend, plugin=plugin, batch=4,
            seconds=8, shapes=((1, 1), (8, 1), (8, 4)), song_seconds=self.song_seconds,
        )  # fmt: skip
        return rows.run_process(ENGINE, task, seconds)

    def prebuilt(self, path: Path, seconds: float) -> Rows:
        """Measures an engine that was built elsewhere, with other weights than the benchmark's."""
        task = self.task(
            path.name, device="tensorrt", engine=str(path), expected="", shapes=CHUNK,
            song_seconds=self.song_seconds,
        )  # fmt: skip
        return rows.run_process(ENGINE, task, seconds)


BUILDER = ("onnx", "onnxscript")
"""The packages that building an engine needs in addition to TensorRT."""
TENSORRTS = {"tensorrt": ("tensorrt",), "tensorrt-rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings")}
"""The packages of each backend; one of them is enough."""


def time_onnxruntime(engines: Engines, clock: Clock) -> Rows:
    """Measures every form until the time is up."""
    if reason := onnxruntime_missing():
        return [{"what": "ONNX Runtime CUDA", "note": reason}]
    measured: Rows = []
    for form in FORMS:
        seconds = min(clock.left_s() - RESERVED_SECONDS, ENGINE_SECONDS)
        measured += engines.onnxruntime(form, seconds)
    return measured


def onnxruntime_missing() -> str:
    """Returns why ONNX Runtime for CUDA is unavailable; empty if it is available."""
    try:
        from bsmamba2.engines.ort_import import import_onnxruntime
        from bsmamba2.engines.ort_providers import PROVIDERS

        has_cuda = PROVIDERS["cuda"] in import_onnxruntime().get_available_providers()
    except (ImportError, Error) as error:
        return describe_runtime_error(error) if is_installed("onnxruntime") else "not installed"
    return "" if has_cuda else "not installed (this onnxruntime has no CUDA)"


def time_tensorrt(engines: Engines, paths: Sequence[Path], clock: Clock) -> Rows:
    """Measures the given engines, then those that can be built here."""
    measured: Rows = []
    for path in paths:
        measured += engines.prebuilt(path, min(clock.left_s(), ENGINE_SECONDS))
    for backend, packages in TENSORRTS.items():
        if not any(map(is_installed, packages)):
            measured.append({"what": backend, "note": "not installed"})
            continue
        for precision, plugin in (("bf16", False), ("bf16", True), ("fp32", False)):
            if not plugin or backend == "tensorrt":
                seconds = min(clock.left_s() - COMPILE_SECONDS, BUILD_SECONDS)
                measured += engines.tensorrt(backend, precision, plugin, seconds)
    return measured
