"""One engine of the runtime on a GPU: its numbers, its time and memory.

Without torch, but where TensorRT builds the engine first: the exporter's package imports it.
Started by :mod:`gpu_engines`, which says what a task holds.
"""

from __future__ import annotations

import ctypes
import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gpu_rows import LEAST_DB, WRONG, Row, answer, median_seconds, reason

from bsmamba2.audio import stft
from bsmamba2.audio.array import Audio
from bsmamba2.audio.snr import snr_db
from bsmamba2.errors import Error
from bsmamba2.models.check import check_input

Task = dict[str, Any]
WARM_RUNS = 5
"""More than a shape needs to be recorded as a CUDA graph."""


def rows(task: Task) -> Iterator[Row]:
    """The check, then each shape, then the song; what failed says why.

    An engine that is to be built is built first, before memory and loading are measured.
    """
    named = {key: task[key] for key in ("what", "graph") if key in task}
    warnings = Warnings()
    row: Row = {**named, "chunks": "check"}
    try:
        if "backend" in task:
            start = time.perf_counter()
            task = {**task, "engine": str(build(task))}
            row["build s"] = time.perf_counter() - start
        memory = Memory(task["device"])
        start = time.perf_counter()
        loaded = load(task)
        row["load s"] = time.perf_counter() - start
        yield check(loaded, row)
    except (Error, ImportError) as error:
        yield {**row, "note": reason(error)}
        return
    for seconds, batch in task["shapes"]:
        row = {**named, "chunks": f"{seconds:g} s x {batch}"}
        try:
            yield shape(loaded, seconds, batch, memory, row) | warnings.taken()
        except Error as error:
            yield {**row, "note": reason(error)}
    if task.get("song_seconds"):
        row = {**named, "what": f"song of {task['song_seconds']:g} s, {task['what']}"}
        try:
            yield song(loaded, task["song_seconds"], row) | memory.taken() | warnings.taken()
        except (Error, ImportError) as error:
            yield {**row, "note": reason(error)}


class Loaded(NamedTuple):
    """An engine, and what it has to give."""

    engine: Any
    least_db: float
    truth: Path | None
    """The folder of the stems of noise; None where the weights are not the benchmark's."""

    def stems(self, seconds: float) -> Audio | None:
        path = self.truth / f"stems-{seconds:g}.npy" if self.truth else None
        return np.load(path) if path and path.exists() else None


def load(task: Task) -> Loaded:
    """The engine of a task, which is built by now.

    Raises:
        Error: it cannot be had here. ImportError: a package is not installed.
    """
    truth = Path(task["truth"]) if task.get("truth") else None
    engine = _tensorrt(task) if "engine" in task else _onnxruntime(task)
    return Loaded(engine, LEAST_DB[engine.manifest.precision], truth)


def _onnxruntime(task: Task) -> Any:
    from bsmamba2.audio import fourier
    from bsmamba2.engines import ort_session
    from bsmamba2.engines.ort_engine import OrtEngine
    from bsmamba2.formats.checkpoint import read_checkpoint
    from bsmamba2.formats.onnx_file import read_onnx

    if task.get("library"):
        ort_session.library = lambda: Path(task["library"])
    file = read_onnx(Path(task["file"]))
    manifest = file.manifest
    weights = read_checkpoint(Path(task["weights"])).tensors
    if manifest.io == "waveform":
        weights = {**weights, **fourier.matrices(manifest.n_fft, manifest.hop)}
    return OrtEngine(file, task["device"], weights, kernel=task["kernel"])


def _tensorrt(task: Task) -> Any:
    from bsmamba2.engines.tensorrt_engine import TensorRtEngine
    from bsmamba2.formats.engine_file import read_engine

    engine = read_engine(Path(task["engine"]))
    return TensorRtEngine(engine, task["device"], trust_engine=True)


def build(task: Task) -> Path:
    """Builds the engine of a task for the card that is here, telling standard error each step.

    Raises:
        Error: it cannot be built here. ImportError: a package is not installed.
    """
    import onnx
    from onnx import numpy_helper

    from bsmamba2.formats.checkpoint import read_checkpoint
    from bsmamba2_export.engine_builder import build_engine

    model = onnx.load(task["file"], load_external_data=False)
    weights = read_checkpoint(Path(task["weights"])).tensors
    for value in model.graph.initializer:
        if value.name in weights:
            value.CopyFrom(numpy_helper.from_array(weights[value.name], value.name))
    whole = Path(task["weights"]).with_name("whole.onnx")
    onnx.save(model, whole)
    output = whole.with_suffix(".engine")
    options = {name: task[name] for name in ("backend", "plugin", "batch", "seconds")}
    build_engine(whole, output, overwrite=True, report=tell, **options)
    return output


def tell(step: str) -> None:
    """At once: what a build is stopped in is the last that it told."""
    print(step, file=sys.stderr, flush=True)


def check(loaded: Loaded, row: Row) -> Row:
    """The model's own check, or a second of noise."""
    engine, known = loaded.engine, loaded.engine.manifest.check
    if known is not None:
        noise = check_input(known.seed, engine.manifest.channels, known.samples)
        came = engine.run(noise).reshape(-1)[:: known.stride]
        return row | judged(known.expected, came, known.snr_db)
    wanted = loaded.stems(1)
    noise = check_input(0, engine.manifest.channels, engine.manifest.sample_rate)
    return row | judged(wanted, engine.run(noise), loaded.least_db)


def judged(wanted: Audio | None, came: Audio, least_db: float) -> Row:
    """The columns of an answer; where nothing is known of it, whether it is finite."""
    if wanted is None:
        return {"ok": bool(np.isfinite(came).all())}
    found = snr_db(wanted, came)
    return {"dB": found, "ok": found >= least_db and bool(np.isfinite(wanted).all())}


def shape(loaded: Loaded, seconds: float, batch: int, memory: Memory, row: Row) -> Row:
    """One run of several chunks, from host memory to host memory."""
    engine = loaded.engine
    manifest = engine.manifest
    samples = int(seconds * manifest.sample_rate)
    given = check_input(0, manifest.channels, samples)
    spectra = manifest.io == "spectrum"
    if spectra:
        given = stft.stft(given, manifest.n_fft, manifest.hop)
    values = np.repeat(given[None], batch, 0)
    for _ in range(WARM_RUNS):
        stems = engine.run_spectrum(values)
    last = stems[-1]
    if spectra:
        last = stft.istft(last, manifest.n_fft, manifest.hop, samples)
    row |= judged(loaded.stems(seconds), last, loaded.least_db)
    if not row["ok"]:
        return {**row, "note": WRONG}
    took = median_seconds(lambda: engine.run_spectrum(values), 5)
    row |= {"ms": took * 1e3, "x real time": seconds * batch / took}
    return row | memory.taken()


def song(loaded: Loaded, length: float, row: Row) -> Row:
    """float32 in host memory to stems in host memory, warm, without overlap."""
    from bsmamba2.separator import Separator

    manifest = loaded.engine.manifest
    separator, chunk = Separator(loaded.engine), manifest.chunk
    noise = check_input(0, manifest.channels, chunk)
    samples = int(length * manifest.sample_rate)
    audio = np.tile(noise, -(-samples // chunk))[:, :samples]

    def run() -> Audio:
        return separator(audio, manifest.sample_rate, overlap=0)[manifest.stems[0]]

    came = run()
    wanted = loaded.stems(chunk / manifest.sample_rate)
    whole = [came[None, :, at : at + chunk] for at in range(0, samples - chunk + 1, chunk)]
    row |= min((judged(wanted, part, loaded.least_db) for part in whole),
               key=lambda found: (found["ok"], found.get("dB", 0)))  # fmt: skip
    if not row["ok"]:
        return {**row, "note": WRONG}
    took = median_seconds(run, 3)
    return row | {"ms": took * 1e3, "x real time": length / took}


class Memory:
    """What this process takes of the card's memory from here on: engines give nothing back."""

    def __init__(self, device: str) -> None:
        self._stream = None
        if device != "cpu":
            from bsmamba2.devices.cuda_memory import CudaStream

            self._stream = CudaStream(int(device.partition(":")[2] or 0))
            self._free = self._now()

    def _now(self) -> int:
        free, whole = ctypes.c_size_t(), ctypes.c_size_t()
        self._stream.enter()
        self._stream.call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(whole))
        return free.value

    def taken(self) -> Row:
        return {"GB": (self._free - self._now()) / 1e9} if self._stream else {}


class Warnings(logging.Handler):
    """What the runtime warns of, such as that a CUDA graph is not used, for the row's note."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._said: list[str] = []
        logging.getLogger("bsmamba2").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self._said.append(record.getMessage())

    def taken(self) -> Row:
        said, self._said = self._said, []
        return {"note": "; ".join(said)[:300]} if said else {}


if __name__ == "__main__":
    answer(rows)
