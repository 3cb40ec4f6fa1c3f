"""A model from a checkpoint, which is poured into the shipped graphs of its size."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bsmamba2.devices.device import CPU
from bsmamba2.devices.products import DEFAULT_SPEED
from bsmamba2.engines.float32_twin import ReducedPrecisionOrtEngine
from bsmamba2.engines.ort_engine import OrtEngine
from bsmamba2.engines.step_engine import StepEngine, SteppedEngine
from bsmamba2.errors import DeviceError, ModelError, not_one_of
from bsmamba2.files.cache import cache_folder
from bsmamba2.formats.checkpoint import LICENCE_KEY
from bsmamba2.formats.families import offline_only
from bsmamba2.formats.model_settings import ModelSettings, origins
from bsmamba2.formats.msst_yaml import settings_from_yaml
from bsmamba2.models import registry
from bsmamba2.models.check import CHECK_STEPS, FAST_SNR_DB, make_check
from bsmamba2.models.graph import Graph, pour, stored_settings
from bsmamba2.models.model import Model, verify_chunks, verify_steps
from bsmamba2.models.model_file import open_checkpoint
from bsmamba2.models.verdict import find_check, keep_check

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bsmamba2.devices.device import Device
    from bsmamba2.engines.protocols import Engine
    from bsmamba2.formats.manifest import Check, Manifest


PRECISIONS = ("fp32", "fp16", "bf16")
"""Precisions of products that a checkpoint can be loaded in."""


class CheckpointModel(Model):
    """A ``.ckpt``, ``.pt``, ``.pth`` or ``.safetensors`` file.

    Args:
        path: the file.
        config: MSST's yaml of the model. Default: what the catalogue and the file itself state.
        precision: of the products, ``fp32``, or ``fp16`` or ``bf16`` for GPUs.

    Raises:
        ModelError: the precision is unknown or has no graph for this network, or the file is not a
            checkpoint of a supported network, is damaged, has a size without a shipped graph, is no
            longer the published file, or disagrees with the yaml.
    """

    def __init__(self, path: Path, config: Path | None = None, precision: str = "fp32") -> None:
        super().__init__(path)
        if precision not in PRECISIONS:
            raise ModelError(not_one_of("precision", PRECISIONS, precision))
        self._precision = precision
        checkpoint = self._checkpoint = open_checkpoint(path)
        self._published = registry.find_by_sha256(checkpoint.sha256)
        stated = {"catalogue": registry.settings_of(checkpoint.sha256)}
        if config is not None:
            yaml = settings_from_yaml(config, checkpoint.family, checkpoint.shapes)
            stated = {"yaml": yaml, **stated}
        stated["file"] = stored_settings(checkpoint)
        settings = ModelSettings()
        for origin in stated.values():
            settings = settings.over(origin)
        self._settings = settings
        self.guesses = settings.unknown(checkpoint.family)
        self.origins = origins(stated, self.guesses)
        self.graph()  # refuses an unknown size

    @property
    def can_stream(self) -> bool:
        return self._checkpoint.family == "bs_mamba2"

    @property
    def manifest(self) -> Manifest:
        return self.graph().manifest

    def graph(self, *, streaming: bool = False, io: str = "spectrum") -> Graph:
        if streaming:
            return self._streaming_graph()
        if self._precision == "fp32":
            return self._pour(io=io)
        graph = self._pour(io="waveform", precision=self._precision)
        check = graph.manifest.check
        if check is None:
            return graph
        # The check was computed in float32.
        least = replace(check, snr_db=min(check.snr_db, FAST_SNR_DB))
        return Graph(graph.file, graph.manifest.replace(check=least), graph.weights)

    def _streaming_graph(self) -> Graph:
        if not self.can_stream:
            raise ModelError(offline_only(self._checkpoint.family))
        if self._precision != "fp32":
            raise ModelError(
                f"precision must be fp32 with lookahead_ms; got {self._precision!r}: use an .onnx "
                f"exported with streaming=True and precision={self._precision!r}"
            )
        return self._pour(streaming=True)

    def chunk_engine(
        self, device: Device, *, verify: bool = True, speed: str = DEFAULT_SPEED
    ) -> Engine:
        # On a GPU the Fourier transforms are products too, and only audio crosses the bus.
        io = "spectrum" if device.kind == "cpu" else "waveform"
        graph, engine = self.graph(io=io), self._engine(device, io, speed)
        if verify:
            verify_chunks(engine, graph, speed)
        return engine

    def _engine(self, device: Device, io: str, speed: str) -> Engine:
        graph = self.graph(io=io)
        if self._precision == "fp32":
            return OrtEngine(graph.file, device, graph.weights, graph.manifest, speed=speed)
        if (self._precision, device.kind) == ("bf16", "cpu"):
            raise DeviceError("precision must be fp32 or fp16 on a CPU; got 'bf16': use a GPU")

        def in_float32() -> Engine:
            twin = self._pour(io=io)
            return OrtEngine(twin.file, device, twin.weights, twin.manifest)

        return ReducedPrecisionOrtEngine(
            graph.file, device, in_float32, graph.weights, graph.manifest
        )

    def step_engine(
        self, device: Device, *, verify: bool = True, speed: str = DEFAULT_SPEED
    ) -> StepEngine:
        graph = self._streaming_graph()
        engine = StepEngine(graph.file, device, graph.weights, graph.manifest, speed=speed)
        if verify:
            verify_steps(engine, graph, speed)
        return engine

    def add_checks(
        self, report: Callable[[str], None] = lambda _: None, folder: Path | None = None
    ) -> None:
        """Computes checks for whole chunks and for a stream, with plain operators on the CPU.

        From then on every device must reproduce them.
        """
        for streaming in (False, True) if self.can_stream else (False,):
            graph = self._pour(streaming=streaming)
            if graph.manifest.check is not None and folder is None:
                continue
            report(f"computing the check for {'a stream' if streaming else 'whole chunks'}")
            self._keep(graph, make_check(_plain_engine(graph)), folder)

    def _keep(self, graph: Graph, check: Check, folder: Path | None) -> None:
        name = graph.manifest.name
        if not np.isfinite(check.expected).all():
            raise ModelError(f"the output of {name} is not finite: download the checkpoint again")
        if not keep_check(graph.manifest, check, folder):
            fix = "make it writable" if folder else "set BSMAMBA2_CACHE to a writable folder"
            raise ModelError(
                f"the check for {name} cannot be written to {folder or cache_folder()}: {fix}"
            )

    def _pour(
        self, *, streaming: bool = False, io: str = "spectrum", precision: str = "fp32"
    ) -> Graph:
        graph = pour(
            self._checkpoint, self._settings, streaming=streaming, io=io, precision=precision
        )
        changes: dict[str, Any] = {"check": find_check(graph.manifest)}
        if self._published is not None and LICENCE_KEY not in self._checkpoint.metadata:
            changes["licence"] = self._published.licence
        checked = graph.manifest.replace(**changes)
        return Graph(graph.file, checked, graph.weights)


def _plain_engine(graph: Graph) -> Engine:
    """Returns an engine that runs the graph with plain operators, without the native kernel."""
    arguments = graph.file, CPU, graph.weights, graph.manifest
    if graph.manifest.streaming:
        return SteppedEngine(StepEngine(*arguments, kernel=False), CHECK_STEPS)
    return OrtEngine(*arguments, kernel=False)
