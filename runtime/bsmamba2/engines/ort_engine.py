"""Runs a model in ONNX Runtime, on the CPU or on a GPU."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bsmamba2.audio import stft
from bsmamba2.audio.array import Audio
from bsmamba2.devices.device import CPU, Device
from bsmamba2.devices.products import DEFAULT_SPEED
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
        self._session = open_session(
            file, device, weights, threads, kernel, graphs=True, speed=speed
        )
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        require_float32(file, inputs, outputs)
        if (len(inputs), len(outputs)) != (1, 1):
            raise ModelError(
                f"{file.path.name} must have one input and one output; got {len(inputs)} and "
                f"{len(outputs)}: export it again"
            )
        self._input = inputs[0].name
        self._bound: BoundSession | None = None
        if device.kind != "cpu":  # on a CPU there is nothing to copy
            memory = "cuda", device.index
            self._bound = BoundSession(
                import_onnxruntime(), self._session, memory, len(self.manifest.stems)
            )

    def run(self, chunk: Audio) -> Audio:
        """See :meth:`bsmamba2.engines.protocols.Engine.run`."""
        manifest, samples = self.manifest, chunk.shape[-1]
        if manifest.io == "waveform":
            short = max(0, manifest.n_fft // 2 + 1 - samples)  # the graph needs this many
            return self._call(np.pad(chunk, [(0, 0), (0, short)]))[..., :samples]
        mixture = stft.stft(chunk, manifest.n_fft, manifest.hop)
        return stft.istft(self._call(mixture), manifest.n_fft, manifest.hop, samples)

    def run_spectrum(self, mixture: Audio) -> Audio:
        """Runs the graph itself: (batch, channels, frames, bins, 2) to (batch, stems, …)."""
        return self._run(mixture)

    def _call(self, values: Audio) -> Audio:
        out: Audio = self._run(values[None])[0]
        return out

    def _run(self, values: Audio) -> Audio:
        try:
            if self._bound is not None:
                return self._bound.run(values)
            out: Audio = self._session.run(None, {self._input: values})[0]
        except Exception as error:  # the binding raises bare exceptions of many classes
            raise ModelError(f"{self.manifest.name} failed to run: {first_line(error)}") from None
        batch, *sizes = values.shape
        require_shape(out, (batch, len(self.manifest.stems), *sizes), self.manifest.name)
        return out
