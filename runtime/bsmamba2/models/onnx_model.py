"""A model from an exported ``.onnx`` file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bsmamba2.devices.products import DEFAULT_SPEED
from bsmamba2.engines.float32_twin import ReducedPrecisionOrtEngine, widened
from bsmamba2.engines.memory_limit import FirstRuns, limited
from bsmamba2.engines.ort_engine import OrtEngine
from bsmamba2.engines.step_engine import StepEngine, SteppedEngine, StepsAsEngine
from bsmamba2.errors import ModelError
from bsmamba2.formats.checkpoint import Checkpoint
from bsmamba2.formats.families import offline_only
from bsmamba2.formats.onnx_file import read_onnx
from bsmamba2.formats.onnx_nodes import require_bounded
from bsmamba2.models.check import CHECK_STEPS, check_input
from bsmamba2.models.graph import Graph, find_graph, widened_manifest
from bsmamba2.models.model import Model, verify_chunks, verify_steps

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bsmamba2.devices.device import Device
    from bsmamba2.engines.protocols import Engine
    from bsmamba2.formats.manifest import Manifest


class OnnxModel(Model):
    """A file that ``bsmamba2 export`` wrote, for whole chunks or for the steps of a stream.

    Raises:
        ModelError: the file is not from bsmamba2, is damaged, refers to data outside its folder, or
            its work has no bound.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._file = read_onnx(path)
        require_bounded(path)

    @property
    def manifest(self) -> Manifest:
        return self._file.manifest

    def graph(self, *, streaming: bool = False, io: str = "spectrum") -> Graph:
        return Graph(self._file, self._file.manifest)

    def chunk_engine(
        self, device: Device, *, verify: bool = True, speed: str = DEFAULT_SPEED
    ) -> Engine:
        if self.manifest.streaming:
            return StepsAsEngine(self.step_engine(device, verify=verify, speed=speed))
        with limited(self._file, device, self._noise_bytes):
            engine = self._engine(device, speed)
            if verify:
                self._try(engine)
                verify_chunks(engine, self.graph(), speed)
        engine.first_runs = FirstRuns(self._file, device)
        return engine

    def step_engine(
        self, device: Device, *, verify: bool = True, speed: str = DEFAULT_SPEED
    ) -> StepEngine:
        if not self.manifest.streaming and self.manifest.family != "bs_mamba2":
            raise ModelError(offline_only(self.manifest.family))
        with limited(self._file, device, self._noise_bytes):
            engine = StepEngine(self._file, device, speed=speed)
            if verify:
                self._try(SteppedEngine(engine, CHECK_STEPS))
                verify_steps(engine, self.graph(), speed)
        engine.first_runs = FirstRuns(self._file, device)
        return engine

    def add_checks(
        self, report: Callable[[str], None] = lambda _: None, folder: Path | None = None
    ) -> None:
        """Does nothing: the file already contains its check."""

    @property
    def _noise_samples(self) -> int:
        """Length of the noise that checks the model, as exports choose it."""
        manifest = self.manifest
        most = manifest.chunk if manifest.fixed_length else manifest.sample_rate
        return most if manifest.check is None else min(most, manifest.check.samples)

    @property
    def _noise_bytes(self) -> int:
        return self._noise_samples * self.manifest.channels * np.dtype(np.float32).itemsize

    def _try(self, engine: Engine) -> None:
        """Runs a model without a check on noise, so that what it cannot do shows at once."""
        if self.manifest.check is None:
            engine.run(check_input(0, self.manifest.channels, self._noise_samples))

    def _engine(self, device: Device, speed: str) -> OrtEngine:
        if self.manifest.precision == "fp32":
            return OrtEngine(self._file, device, speed=speed)

        def in_float32() -> Engine:
            weights = widened(self._file)
            sha256, name = self.manifest.checkpoint_sha256 or "", self.manifest.name
            file = find_graph(Checkpoint(weights, {}, sha256, name, self.manifest.family))
            return OrtEngine(file, device, weights, widened_manifest(self.manifest, file.manifest))

        return ReducedPrecisionOrtEngine(self._file, device, in_float32)
