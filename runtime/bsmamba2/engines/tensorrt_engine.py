"""Runs an engine of TensorRT or TensorRT-RTX, with the protocol that all engines have."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import weakref
from collections.abc import Sequence
from functools import partial
from queue import LifoQueue
from typing import Any

from bsmamba2.audio.array import Audio
from bsmamba2.devices import cuda, nvidia
from bsmamba2.devices.capture import CAPTURE, Held
from bsmamba2.devices.cuda_memory import CudaBuffer, CudaStream
from bsmamba2.devices.device import Device, missing_card
from bsmamba2.engines import tensorrt_plugin
from bsmamba2.engines.chunk_run import run_chunk
from bsmamba2.engines.tensorrt_import import import_tensorrt
from bsmamba2.errors import AudioError, DeviceError, ModelError
from bsmamba2.files.cache import cache_folder, read_own, write_bytes
from bsmamba2.formats.engine_file import EngineFile

MAX_COMPILED_BYTES = 1 << 28

SLOTS = 2
"""Runs in flight: while one is computed, the next is uploaded."""

_TENSORS = {
    "spectrum": (("spectrum", "stems"),),
    "waveform": (("waveform", "stems"),),
    "both": (("spectrum", "stems"), ("waveform", "waveform_stems")),
}
"""The engine's inputs and outputs in order, by the manifest's io."""


class TensorRtEngine:
    """An engine on a card; may be shared between threads.

    Each run has its own slot, a stream with pinned memory, so its copies overlap with the
    computation of another run. All runs are computed one after the other, on one stream:

        slot 0    │ upload ─┐                ┌─ download │
        compute             └─ run ─┬─ run ──┼───┐
        slot 1          │ upload ───┘        │   └─ download │

    Args:
        file: the engine and its description.
        device: the card, of kind ``tensorrt``.
        trust_engine: whether to load an engine that this user did not build; it can run any code.

    Raises:
        ModelError: the engine is damaged, not trusted, or built by another version of TensorRT.
        DeviceError: the engine was not built for this card.
        MissingExtra: the TensorRT that built it is not installed.
    """

    def __init__(self, file: EngineFile, device: Device, trust_engine: bool = False) -> None:
        content = file.require_trust(trust_engine)
        _require_card(file, device)
        key = file.key
        trt = import_tensorrt(key.backend)
        if trt.__version__ != key.version:
            raise ModelError(
                f"{file.path.name} was built by {key.backend} {key.version}, and {trt.__version__} "
                "is installed: build it again with bsmamba2 build-engine"
            )
        library = tensorrt_plugin.register() if key.target == "tensorrt-plugin" else None
        self.manifest, self.device = file.manifest, device
        self._key, self._name = key, file.path.name
        self._tensors = _TENSORS[self.manifest.io]
        self._lock = threading.Lock()
        runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
        self._compiled = CompiledKernels(file, device)
        self._slots: LifoQueue[_Slot] = LifoQueue()
        with CAPTURE.using():
            self._compute = CudaStream(device.index)
            engine = runtime.deserialize_cuda_engine(content)
            if engine is None:
                raise ModelError(
                    f"{key.backend} refuses {self._name}: update the driver, or build it again "
                    "with bsmamba2 build-engine"
                )
            # The runtime must live as long as the engine.
            self._held = Held(runtime, engine, self._compiled.create_context(engine))
            for _ in range(SLOTS):
                self._slots.put(_Slot(device.index, len(self._tensors)))
        if library is not None:  # it keeps memory for the scans on this stream
            free = partial(cuda.release, library, self._compute.handle)
            weakref.finalize(self, CAPTURE.release, free).atexit = False

    def run(self, chunk: Audio) -> Audio:
        """See :meth:`bsmamba2.engines.protocols.Engine.run`."""
        return run_chunk(self.manifest, chunk, self.run_graph)

    def run_spectrum(self, mixture: Audio) -> Audio:
        """Runs an engine of spectra: (batch, channels, frames, bins, 2) to (batch, stems, …)."""
        return self.run_graph([mixture])[0]

    def run_graph(self, inputs: Sequence[Audio]) -> list[Audio]:
        """Runs the engine itself: its inputs (batch, …) in order, to its outputs (batch, stems, …).

        Raises:
            AudioError: the batch or the number of frames is larger than the engine was built for.
            ModelError: the engine failed to run.
        """
        batch, frames = inputs[0].shape[0], inputs[0].shape[2]
        if self.manifest.io == "waveform":
            frames = frames // self.manifest.hop + 1
        if batch > self._key.batch or frames > self._key.frames:
            raise AudioError(
                f"chunks for {self._name} must have up to {self._key.batch} x {self._key.frames} "
                f"frames; got {batch} x {frames}: build it for longer chunks"
            )
        stems = len(self.manifest.stems)
        shapes = [(batch, stems, *values.shape[1:]) for values in inputs]
        slot = self._slots.get()  # waits for a free one
        try:
            with CAPTURE.using():
                outputs = self._run_in(slot, inputs, shapes)
            with self._lock:
                self._compiled.keep()
            return outputs
        finally:
            self._slots.put(slot)

    def _run_in(
        self, slot: _Slot, inputs: Sequence[Audio], shapes: Sequence[tuple[int, ...]]
    ) -> list[Audio]:
        """Uploads inputs, runs, and downloads outputs of these shapes."""
        slot.stream.enter()
        for values, shape, buffers in zip(inputs, shapes, slot.buffers, strict=True):
            buffers.output.reserve(shape)
            buffers.input.upload(values)
        with self._lock:
            self._compute.follow(slot.stream)
            self._execute(slot, inputs)
            slot.stream.follow(self._compute)
        return [
            buffers.output.download(shape)
            for shape, buffers in zip(shapes, slot.buffers, strict=True)
        ]

    def _execute(self, slot: _Slot, inputs: Sequence[Audio]) -> None:
        """Enqueues a run on the computing stream."""
        context = self._held.objects[-1]
        for (source, target), values, buffers in zip(
            self._tensors, inputs, slot.buffers, strict=True
        ):
            context.set_input_shape(source, values.shape)
            context.set_tensor_address(source, buffers.input.address)
            context.set_tensor_address(target, buffers.output.address)
        if not context.execute_async_v3(self._compute.handle):
            raise ModelError(f"{self._name} failed to run: build it again for this card")


class CompiledKernels:
    """The kernels that TensorRT-RTX compiles for the card, cached for the next process.

    The cache is keyed by engine, card and driver. Losing it costs only seconds.
    """

    def __init__(self, file: EngineFile, device: Device) -> None:
        about = json.dumps([file.sha256, file.key.version, device.hardware]).encode()
        name = hashlib.sha256(about).hexdigest()[:32]
        self.path = cache_folder() / "compiled" / f"{name}.cache"
        self._cache: Any = None
        self._runs = self._stored_bytes = 0

    def create_context(self, engine: Any) -> Any:
        """Creates the engine's execution context, with the cache if the backend has one (RTX)."""
        config: Any = getattr(engine, "create_runtime_config", lambda: None)()
        if not hasattr(config, "create_runtime_cache"):
            return engine.create_execution_context()
        self._cache = config.create_runtime_cache()
        with contextlib.suppress(OSError):
            known = read_own(self.path, MAX_COMPILED_BYTES)
            if self._cache.deserialize(known):  # it refuses damaged and foreign data
                self._stored_bytes = len(known)
        config.set_runtime_cache(self._cache)
        return engine.create_execution_context(config)

    def keep(self) -> None:
        """Writes the cache if it has grown. Call after each run; it checks after 1, 2, 4, …"""
        self._runs += 1
        if self._cache is None or self._runs & (self._runs - 1):
            return
        found = bytes(self._cache.serialize())
        if len(found) != self._stored_bytes and write_bytes(self.path, found):
            self._stored_bytes = len(found)


class _Slot:
    """Inputs and outputs of one run, with their own stream."""

    def __init__(self, index: int, inputs: int) -> None:
        self.stream = CudaStream(index)
        self.buffers = [_Buffers(self.stream) for _ in range(inputs)]


class _Buffers:
    """An input and its output, on the card and in pinned memory."""

    def __init__(self, stream: CudaStream) -> None:
        self.input, self.output = CudaBuffer(stream), CudaBuffer(stream)


def _missing(device: Device) -> str | None:
    """See :data:`bsmamba2.devices.device.Backend`."""
    return missing_card(device, alternative="use the model that the engine was built from")


BACKENDS = (("tensorrt", _missing),)
"""The only kind of device that runs an engine."""


def _require_card(file: EngineFile, device: Device) -> None:
    """Refuses a card that the engine was not built for."""
    driver = nvidia.driver()
    card = driver.cards[device.index] if driver else None
    known = () if card is None else (card.name, "sm{}{}".format(*card.compute))
    if not set(known) & set(file.key.gpus):
        raise DeviceError(
            f"the card must be one that {file.path.name} was built for, "
            f"{', '.join(file.key.gpus)}; got {' or '.join(known)} as {device}: build it again "
            "with bsmamba2 build-engine"
        )
