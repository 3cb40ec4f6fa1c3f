"""The runtime's engines on a GPU: ONNX Runtime and TensorRT, each in a process of its own.

A task for :mod:`gpu_engine` holds ``what`` and ``device``; ``shapes``, (seconds of a chunk, chunks
of a run); ``song_seconds``, 0 for none; ``truth``, the folder of :meth:`gpu_network.Truth.write`;
and of ONNX Runtime ``file``, ``weights``, ``kernel`` and ``library``, of TensorRT ``engine``, or
``file``, ``weights`` and the arguments of ``build_engine``.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gpu_rows
from gpu_chip import Clock
from gpu_network import LAST_SECONDS, Truth
from gpu_rows import Rows, reason
from gpu_song import SONG_SECONDS

from bsmamba2.devices import cuda
from bsmamba2.errors import Error
from bsmamba2_network import BSMamba2

CHUNK = ((8, 1),)
SHAPES = ((1, 1), (4, 1), (8, 1), (1, 16), (16, 1), (8, 4), (8, 16))
"""Seconds of a chunk and chunks of a run, ever larger: the memory is the most so far."""
SECONDS_EACH = 60
"""Of one engine, at most."""
BUILD_SECONDS, COMPILE_SECONDS = 180, 40
"""Of one engine that TensorRT builds first, at most; what ``torch.compile`` still wants after it.
"""


@dataclass(frozen=True)
class Form:
    """A model in ONNX Runtime, as it can be deployed."""

    precision: str
    io: str
    scan: str
    """``our kernel``, ``target ort`` or ``plain operators``."""
    graph: str
    """Whether a shape that keeps coming is replayed as a CUDA graph: ``on`` or ``off``."""
    shapes: tuple[tuple[float, int], ...] = CHUNK
    song: bool = False

    def file(self, preset: str, graphs: Path | None) -> Path | None:
        """Its graph without weights: a shipped one, or one of ``gpu_graphs.py``; or None."""
        target = "ort" if self.scan == "target ort" else "portable"
        if (target, self.precision) == ("portable", "fp32"):
            suffix = "-waveform" if self.io == "waveform" else ""
            return cuda.kernels().parents[1] / "models" / "graphs" / f"{preset}{suffix}.onnx"
        made = graphs and graphs / graph_name(preset, target, self.precision, self.io)
        return made if made and made.exists() else None


def graph_name(preset: str, target: str, precision: str, io: str) -> str:
    """What ``gpu_graphs.py`` calls a graph."""
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
"""Most wanted first."""


@dataclass(frozen=True)
class Engines:
    """What all engines are measured with."""

    preset: str
    folder: Path
    """For the weights, the stems of noise, and what is built."""
    graphs: Path | None
    """What ``gpu_graphs.py`` wrote."""
    library: Path
    device: str = "cuda"
    song_seconds: float = SONG_SECONDS

    def prepare(self, net: BSMamba2, truth: Truth) -> None:
        """Writes what the processes read."""
        net.save(self.folder / "weights.safetensors")
        truth.write(self.folder, {seconds for seconds, _ in SHAPES})

    def task(self, what: str, **more: Any) -> dict[str, Any]:
        weights = str(self.folder / "weights.safetensors")
        return {"what": what, "device": self.device, "truth": str(self.folder),
                "weights": weights, "library": str(self.library), **more}  # fmt: skip

    def onnxruntime(self, form: Form, seconds: float) -> Rows:
        """The rows of one form."""
        what = f"ONNX Runtime, {form.scan}, {form.precision}, {form.io}"
        file = form.file(self.preset, self.graphs)
        if file is None:
            note = "python benchmarks/gpu_graphs.py FOLDER makes its graph, for --graphs FOLDER"
            return [{"what": what, "graph": form.graph, "note": note}]
        task = self.task(
            what, graph=form.graph, file=str(file), kernel=form.scan == "our kernel",
            shapes=form.shapes, song_seconds=self.song_seconds * form.song,
        )  # fmt: skip
        return gpu_rows.run_apart("gpu_engine.py", task, seconds, BSMAMBA2_CUDA_GRAPH=form.graph)

    def tensorrt(self, backend: str, precision: str, plugin: bool, seconds: float) -> Rows:
        """The rows of an engine that is built for the card that is here."""
        what = f"{backend}, {precision}{', plugin' * plugin}"
        file = Form(precision, "spectrum", "", "off").file(self.preset, self.graphs)
        if file is None or not all(map(importlib.util.find_spec, BUILDER)):
            return [{"what": what, "note": "bsmamba2 build-engine makes one, for --engine PATH"}]
        task = self.task(
            what, device="tensorrt", file=str(file), backend=backend, plugin=plugin, batch=4,
            seconds=8, shapes=((1, 1), (8, 1), (8, 4)), song_seconds=self.song_seconds,
        )  # fmt: skip
        return gpu_rows.run_apart("gpu_engine.py", task, seconds)

    def given(self, path: Path, seconds: float) -> Rows:
        """The rows of an engine that was built elsewhere, of weights of its own."""
        task = self.task(
            path.name, device="tensorrt", engine=str(path), truth="", shapes=CHUNK,
            song_seconds=self.song_seconds,
        )  # fmt: skip
        return gpu_rows.run_apart("gpu_engine.py", task, seconds)


BUILDER = ("onnx", "onnxscript")
"""What building an engine needs beside TensorRT."""
TENSORRTS = {"tensorrt": ("tensorrt",), "tensorrt-rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings")}
"""The packages of each backend; one of them will do."""


def time_onnxruntime(engines: Engines, clock: Clock) -> Rows:
    """Every form, until the time is up."""
    if lacking := lacking_onnxruntime():
        return [{"what": "ONNX Runtime CUDA", "note": lacking}]
    rows: Rows = []
    for form in FORMS:
        rows += engines.onnxruntime(form, min(clock.left() - LAST_SECONDS, SECONDS_EACH))
    return rows


def lacking_onnxruntime() -> str:
    """Why there is no ONNX Runtime for CUDA; empty where there is one."""
    try:
        from bsmamba2.engines.ort_session import PROVIDERS, import_onnxruntime

        has_cuda = PROVIDERS["cuda"] in import_onnxruntime().get_available_providers()
    except (ImportError, Error) as error:
        absent = importlib.util.find_spec("onnxruntime") is None
        return "not installed" if absent else reason(error)
    return "" if has_cuda else "not installed (this onnxruntime has no CUDA)"


def time_tensorrt(engines: Engines, paths: Sequence[Path], clock: Clock) -> Rows:
    """The engines that were given, and those that can be built here."""
    rows: Rows = []
    for path in paths:
        rows += engines.given(path, min(clock.left(), SECONDS_EACH))
    for backend, packages in TENSORRTS.items():
        if not any(map(importlib.util.find_spec, packages)):
            rows.append({"what": backend, "note": "not installed"})
            continue
        for precision, plugin in (("bf16", False), ("bf16", True), ("fp32", False)):
            if not plugin or backend == "tensorrt":
                left = min(clock.left() - COMPILE_SECONDS, BUILD_SECONDS)
                rows += engines.tensorrt(backend, precision, plugin, left)
    return rows
