"""One of the runtime's engines on a GPU: its numbers, its time and its memory.

It runs in a separate process, started by :mod:`benchmarks.gpu.engines`, which describes its task.
It imports no torch, unless TensorRT builds the engine first: the exporter's package imports torch.
"""

from __future__ import annotations

import ctypes
import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from benchmarks.gpu.rows import (
    MIN_SNR_DB,
    WRONG,
    Row,
    Rows,
    Task,
    describe_runtime_error,
    median_seconds,
    print_rows,
)
from bsmamba2.audio import stft
from bsmamba2.audio.array import Audio
from bsmamba2.audio.snr import snr_db
from bsmamba2.engines.protocols import Engine
from bsmamba2.errors import Error
from bsmamba2.models.check import check_input
from bsmamba2.pipeline.overlap_add import OverlapAdd, engine_threads

THREADS = 2
"""Runs in flight, as in a song's pipeline on a GPU."""
WARM_UP_RUNS = 5
"""More than the runs after which a shape is recorded as a CUDA graph."""


class BatchEngine(Engine, Protocol):
    """An engine that also runs several chunks in one call."""

    def run_spectrum(self, mixture: Audio) -> Audio:
        """Separates a batch of chunks, spectra or waveforms as the model takes them."""


def measure(task: Task) -> Iterator[Row]:
    """Measures the check, then each shape, then the song; a failure becomes a row's note.

    If the task requires an engine to be built, it is built before memory and loading are measured.
    """
    labels: Row = {key: task[key] for key in ("what", "graph") if key in task}
    warnings = Warnings()
    row: Row = {**labels, "chunks": "check"}
    try:
        if "backend" in task:
            start = time.perf_counter()
            task = {**task, "engine": str(build(task))}
            row["build s"] = time.perf_counter() - start
        memory = Memory(task["device"])
        start = time.perf_counter()
        subject = load(task)
        row["load s"] = time.perf_counter() - start
        yield check(subject, row)
    except (Error, ImportError) as error:
        yield {**row, "note": describe_runtime_error(error)}
        return
    for seconds, batch in task["shapes"]:
        row = {**labels, "chunks": f"{seconds:g} s x {batch}"}
        try:
            yield time_shape(subject, seconds, batch, memory, row) | warnings.drain()
        except Error as error:
            yield {**row, "note": describe_runtime_error(error)}
    if task.get("song_seconds"):
        row = {**labels, "what": f"song of {task['song_seconds']:g} s, {task['what']}"}
        try:
            timed = time_song(subject, task["song_seconds"], row)
            yield timed | memory.used() | warnings.drain()
        except (Error, ImportError) as error:
            yield {**row, "note": describe_runtime_error(error)}


class Subject(NamedTuple):
    """The engine to measure, and its expected output."""

    engine: BatchEngine
    min_snr_db: float
    expected: Path | None
    """The folder of the stems of noise; None if the engine has other weights."""

    def stems(self, seconds: float) -> Audio | None:
        path = self.expected / f"stems-{seconds:g}.npy" if self.expected else None
        stems: Audio | None = np.load(path) if path and path.exists() else None
        return stems


def load(task: Task) -> Subject:
    """Loads the engine of a task; it must have been built.

    Raises:
        Error: the engine cannot run here.
        ImportError: a package is not installed.
    """
    expected = Path(task["expected"]) if task.get("expected") else None
    engine = _load_tensorrt(task) if "engine" in task else _load_onnxruntime(task)
    return Subject(engine, MIN_SNR_DB[engine.manifest.precision], expected)


def _load_onnxruntime(task: Task) -> BatchEngine:
    from bsmamba2.audio import fourier
    from bsmamba2.devices.device import choose
    from bsmamba2.engines import ort_providers, ort_session
    from bsmamba2.engines.ort_engine import OrtEngine
    from bsmamba2.formats.checkpoint import read_checkpoint
    from bsmamba2.formats.onnx_file import read_onnx

    if task.get("library"):
        ort_session.library = lambda: Path(task["library"])  # type: ignore[attr-defined]
    file = read_onnx(Path(task["file"]))
    manifest = file.manifest
    weights = read_checkpoint(Path(task["weights"])).tensors
    if manifest.io == "waveform":
        weights = {**weights, **fourier.matrices(manifest.n_fft, manifest.hop)}
    return OrtEngine(
        file, choose(task["device"], ort_providers.BACKENDS), weights, kernel=task["kernel"]
    )


def _load_tensorrt(task: Task) -> BatchEngine:
    from bsmamba2.devices.device import choose
    from bsmamba2.engines.tensorrt_engine import BACKENDS, TensorRtEngine
    from bsmamba2.formats.engine_file import read_engine

    engine = read_engine(Path(task["engine"]))
    return TensorRtEngine(engine, choose(task["device"], BACKENDS), trust_engine=True)


def build(task: Task) -> Path:
    """Builds the engine of a task for this machine's GPU and logs each step to standard error.

    Raises:
        Error: the engine cannot be built here.
        ImportError: a package is not installed.
    """
    import onnx
    from onnx import numpy_helper

    from bsmamba2.audio import fourier
    from bsmamba2.formats.checkpoint import read_checkpoint
    from bsmamba2.formats.onnx_file import read_onnx
    from bsmamba2_export.engine_builder import build_engine

    model = onnx.load(task["file"], load_external_data=False)
    manifest = read_onnx(Path(task["file"])).manifest
    weights = read_checkpoint(Path(task["weights"])).tensors
    if manifest.io == "waveform":
        weights = {**weights, **fourier.matrices(manifest.n_fft, manifest.hop)}
    for value in model.graph.initializer:
        if value.name in weights:
            value.CopyFrom(numpy_helper.from_array(weights[value.name], value.name))
    with_weights = Path(task["weights"]).with_name("with-weights.onnx")
    onnx.save(model, with_weights)
    output = with_weights.with_suffix(".engine")
    options = {name: task[name] for name in ("backend", "plugin", "batch", "seconds")}
    build_engine(with_weights, output, overwrite=True, report=log_step, **options)
    return output


def log_step(step: str) -> None:
    """Prints a step. Flushes, so that if a build is stopped, the last line names its step."""
    print(step, file=sys.stderr, flush=True)


def check(subject: Subject, row: Row) -> Row:
    """Compares the output for the model's check, or for one second of noise if it has none."""
    engine, known = subject.engine, subject.engine.manifest.check
    if known is not None:
        noise = check_input(known.seed, engine.manifest.channels, known.samples)
        got = engine.run(noise).reshape(-1)[:: known.stride]
        return row | compare(np.asarray(known.expected, np.float32), got, known.snr_db)
    expected = subject.stems(1)
    noise = check_input(0, engine.manifest.channels, engine.manifest.sample_rate)
    return row | compare(expected, engine.run(noise), subject.min_snr_db)


def compare(expected: Audio | None, got: Audio, min_snr_db: float) -> Row:
    """Returns the columns about the output; without ``expected``, only whether it is finite."""
    if expected is None:
        return {"ok": bool(np.isfinite(got).all())}
    snr = snr_db(expected, got)
    return {"dB": snr, "ok": snr >= min_snr_db and bool(np.isfinite(expected).all())}


def time_shape(subject: Subject, seconds: float, batch: int, memory: Memory, row: Row) -> Row:
    """Times one run of ``batch`` chunks, from host memory to host memory."""
    engine = subject.engine
    manifest = engine.manifest
    samples = int(seconds * manifest.sample_rate)
    chunk = check_input(0, manifest.channels, samples)
    spectra = manifest.io == "spectrum"
    if spectra:
        chunk = stft.stft(chunk, manifest.n_fft, manifest.hop)
    chunks = np.repeat(chunk[None], batch, 0)
    for _ in range(WARM_UP_RUNS):
        stems = engine.run_spectrum(chunks)
    last = stems[-1]
    if spectra:
        last = stft.istft(last, manifest.n_fft, manifest.hop, samples)
    row |= compare(subject.stems(seconds), last, subject.min_snr_db)
    if not row["ok"]:
        return {**row, "note": WRONG}
    elapsed_s = median_seconds(lambda: engine.run_spectrum(chunks), 5)
    row |= {"ms": elapsed_s * 1e3, "x real time": seconds * batch / elapsed_s}
    return row | memory.used()


def time_song(subject: Subject, seconds: float, row: Row) -> Row:
    """Times a song, float32 in host memory to stems in host memory, warm, without overlap.

    It takes the path of a Separator, which itself needs packages that read files.
    """
    manifest = subject.engine.manifest
    chunk = manifest.chunk
    noise = check_input(0, manifest.channels, chunk)
    samples = int(seconds * manifest.sample_rate)
    audio = np.tile(noise, -(-samples // chunk))[:, :samples]

    def run() -> Audio:
        with engine_threads(THREADS) as pool:
            core = OverlapAdd(subject.engine, overlap=0, pool=pool)
            stem: Audio = np.concatenate([core.push(audio), core.flush()], axis=-1)[0]
            return stem

    stem = run()
    expected = subject.stems(chunk / manifest.sample_rate)
    chunks = [stem[None, :, at : at + chunk] for at in range(0, samples - chunk + 1, chunk)]
    compared: Rows = [compare(expected, each, subject.min_snr_db) for each in chunks]
    worst: Row = min(compared, key=lambda columns: (columns["ok"], columns.get("dB", 0)))
    row |= worst
    if not row["ok"]:
        return {**row, "note": WRONG}
    elapsed_s = median_seconds(run, 3)
    return row | {"ms": elapsed_s * 1e3, "x real time": seconds / elapsed_s}


class Memory:
    """Measures the GPU memory used since its creation; engines never free theirs."""

    def __init__(self, device: str) -> None:
        self._stream = None
        if device != "cpu":
            from bsmamba2.devices.cuda_memory import CudaStream

            self._stream = CudaStream(int(device.partition(":")[2] or 0))
            self._free_at_start = self._free()

    def _free(self) -> int:
        assert self._stream is not None
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._stream.enter()
        self._stream.call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value

    def used(self) -> Row:
        """Returns the column of memory; no column on a CPU."""
        return {"GB": (self._free_at_start - self._free()) / 1e9} if self._stream else {}


class Warnings(logging.Handler):
    """Collects the runtime's warnings, such as an unused CUDA graph, for the row's note."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._messages: list[str] = []
        logging.getLogger("bsmamba2").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self._messages.append(record.getMessage())

    def drain(self) -> Row:
        """Returns a note with the warnings since the last call; no column if there were none."""
        messages, self._messages = self._messages, []
        return {"note": "; ".join(messages)[:300]} if messages else {}


if __name__ == "__main__":
    print_rows(measure)
