"""Runs a model in ONNX Runtime, on the CPU or on a GPU."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bsmamba2.audio import stft
from bsmamba2.audio.array import Audio
from bsmamba2.devices.device import parse
from bsmamba2.engines.ort_binding import BoundSession
from bsmamba2.engines.ort_session import first_line, import_onnxruntime, open_session
from bsmamba2.errors import ModelError
from bsmamba2.formats.manifest import Manifest
from bsmamba2.formats.onnx_file import OnnxFile


class OrtEngine:
    """A model loaded into an ONNX Runtime session; may be shared between threads.

    Args:
        manifest: in place of the file's own, where a checkpoint was poured in.

    The other arguments, and what is raised: :func:`bsmamba2.engines.ort_session.open_session`.
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
        if file.manifest.streaming:
            raise ModelError(
                f"{file.path.name} takes the steps of a stream, not whole chunks: export it "
                "without --streaming"
            )
        self.manifest = manifest or file.manifest
        self._session, self.device = open_session(
            file, device, weights, threads, kernel, graphs=True
        )
        self._input = self._session.get_inputs()[0].name
        self._bound: BoundSession | None = None
        place = parse(self.device)
        if place is not None and place.kind != "cpu":  # there is no bus to spare on a CPU
            self._bound = BoundSession(
                import_onnxruntime(), self._session, ("cuda", place.index), len(self.manifest.stems)
            )

    def run(self, chunk: Audio) -> Audio:
        """See :meth:`bsmamba2.formats.protocols.Engine.run`."""
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
            if self._bound is not None:
                return self._bound.run(values)
            out: Audio = self._session.run(None, {self._input: values})[0]
        except Exception as error:  # the binding raises bare exceptions of many classes
            raise ModelError(f"{self.manifest.name} failed to run: {first_line(error)}") from None
        return out
