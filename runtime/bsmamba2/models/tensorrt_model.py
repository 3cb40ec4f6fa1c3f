"""A model from a TensorRT engine file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bsmamba2.devices import cuda
from bsmamba2.devices.products import DEFAULT_SPEED
from bsmamba2.engines.tensorrt_engine import BACKENDS, TensorRtEngine
from bsmamba2.errors import ModelError
from bsmamba2.formats.engine_file import read_engine
from bsmamba2.models.model import Model
from bsmamba2.models.verdict import require_verdict

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bsmamba2.devices.device import Device
    from bsmamba2.engines.protocols import Engine
    from bsmamba2.engines.step_engine import StepEngine
    from bsmamba2.formats.manifest import Manifest
    from bsmamba2.models.graph import Graph


class TensorRtModel(Model):
    """An ``.engine`` file that ``bsmamba2 build-engine`` wrote.

    Args:
        path: the engine.
        trust_engine: whether to load an engine that this user did not build; it can run any code.

    Raises:
        ModelError: the engine's description is missing or damaged.
    """

    backends = BACKENDS

    def __init__(self, path: Path, trust_engine: bool = False) -> None:
        super().__init__(path)
        self._file = read_engine(path)
        self._trust_engine = trust_engine

    @property
    def manifest(self) -> Manifest:
        return self._file.manifest

    def graph(self, *, io: str = "spectrum") -> Graph:
        raise ModelError(f"{self.path} is already an engine: give the model that it was built from")

    def chunk_engine(
        self, device: Device, *, verify: bool = True, speed: str = DEFAULT_SPEED
    ) -> Engine:
        file = self._file
        engine = TensorRtEngine(file, device, self._trust_engine)
        if verify:
            about = {"model": file.sha256, file.key.backend: file.key.version}
            if file.key.target == "tensorrt-plugin":  # it runs kernels that are not in the file
                about["cuda_kernels"] = cuda.kernels_version()
            require_verdict(engine, about)
        return engine

    def step_engine(
        self, device: Device, *, verify: bool = True, speed: str = DEFAULT_SPEED
    ) -> StepEngine:
        raise ModelError(
            f"lookahead_ms must be left out with {self.path.name}, which runs whole chunks: "
            "use a checkpoint, or an .onnx exported with streaming=True"
        )

    def add_checks(
        self, report: Callable[[str], None] = lambda _: None, folder: Path | None = None
    ) -> None:
        """Does nothing: the file already contains its check."""
