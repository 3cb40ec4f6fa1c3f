"""Runs a model in ONNX Runtime, on the CPU or on a GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bsmamba2.audio.array import Audio
from bsmamba2.devices.capture import CAPTURE, Held
from bsmamba2.devices.cuda_memory import CudaStream
from bsmamba2.devices.device import CPU, Device
from bsmamba2.devices.products import DEFAULT_SPEED
from bsmamba2.engines.chunk_run import run_chunk
from bsmamba2.engines.memory_limit import FirstRuns
from bsmamba2.engines.ort_binding import BoundSession
from bsmamba2.engines.ort_import import import_onnxruntime
from bsmamba2.engines.ort_session import (
    first_line,
    open_session,
    require_float32,
    require_shape,
)
from bsmamba2.errors import ModelError
from bsmamba2.formats.manifest import Manifest
from bsmamba2.formats.onnx_file import OnnxFile


class OrtEngine:
    """A model loaded into an ONNX Runtime session; may be shared between threads.

    Args:
        manifest: replaces the file's own manifest if a checkpoint is poured into the file.

    The other arguments and the errors are those of
    :func:`bsmamba2.engines.ort_session.open_session`.
    """

    def __init__(
        self,
        file: OnnxFile,
        device: Device = CPU,
        weights: Mapping[str, Audio] | None = None,
        manifest: Manifest | None = None,
        threads: int | None = None,
        kernel: bool = True,
        speed: str = DEFAULT_SPEED,
    ) -> None:
        if file.manifest.streaming:
            raise ModelError(
                f"{file.path.name} takes the steps of a stream, not whole chunks: export it "
                "without streaming=True"
            )
        self.manifest = manifest or file.manifest
        self.device = device
        self.first_runs: FirstRuns | None = None
        """Limits the memory of runs, if the graph is untrusted."""
        stream: CudaStream | None = None
        if device.kind == "cuda":
            with CAPTURE.using():
                stream = CudaStream(device.index)
        session = open_session(
            file, device, weights, threads, kernel, graphs=True, speed=speed,
            stream=stream.handle if stream else 0,
        )  # fmt: skip
        self._held = Held(stream, session)
        inputs, outputs = session.get_inputs(), session.get_outputs()
        require_float32(file, inputs, outputs)
        expected = 2 if self.manifest.io == "both" else 1
        if (len(inputs), len(outputs)) != (expected, expected):
            raise ModelError(
                f"{file.path.name} must have as many inputs and outputs as its io "
                f"{self.manifest.io!r}, {expected}; got {len(inputs)} and {len(outputs)}: export "
                "it again"
            )
        self._inputs = [value.name for value in inputs]
        self._bound: BoundSession | None = None
        if device.kind != "cpu":  # on a CPU there is nothing to copy
            memory = "cuda", device.index
            stems = len(self.manifest.stems)
            self._bound = BoundSession(import_onnxruntime(), session, memory, stems, stream)

    @property
    def _session(self) -> Any:
        return self._held.objects[1]

    def run(self, chunk: Audio) -> Audio:
        """See :meth:`bsmamba2.engines.protocols.Engine.run`."""
        if self.first_runs is None:
            return run_chunk(self.manifest, chunk, self.run_graph)
        with self.first_runs.limited(chunk.nbytes):
            return run_chunk(self.manifest, chunk, self.run_graph)

    def run_spectrum(self, mixture: Audio) -> Audio:
        """Runs a graph of spectra: (batch, channels, frames, bins, 2) to (batch, stems, …)."""
        return self.run_graph([mixture])[0]

    def run_graph(self, inputs: Sequence[Audio]) -> list[Audio]:
        """Runs the graph itself: its inputs (batch, …) in order, to its outputs (batch, stems, …).

        Raises:
            ModelError: ONNX Runtime cannot run it.
        """
        try:
            if self._bound is not None:
                return self._bound.run(inputs)
            named = dict(zip(self._inputs, inputs, strict=True))
            outputs: list[Audio] = self._session.run(None, named)
        except Exception as error:  # the binding raises bare exceptions of many classes
            raise ModelError(f"{self.manifest.name} failed to run: {first_line(error)}") from None
        for values, out in zip(inputs, outputs, strict=True):
            batch, *sizes = values.shape
            require_shape(out, (batch, len(self.manifest.stems), *sizes), self.manifest.name)
        return outputs
