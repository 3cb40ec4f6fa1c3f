"""A model on a device: an engine for chunks, and a stepper for each stream."""

from __future__ import annotations

import os
from threading import RLock
from typing import TYPE_CHECKING

from bsmamba2.devices.products import DEFAULT_SPEED, products, require_speed
from bsmamba2.engines.protocols import StreamingEngine
from bsmamba2.errors import DeviceError, ModelError
from bsmamba2.models.open_model import open_model

if TYPE_CHECKING:
    from bsmamba2.engines.protocols import Engine, Stepper
    from bsmamba2.engines.step_engine import StepEngine
    from bsmamba2.models.model import Model


class LoadedModel:
    """A single model with an engine for chunks, and a step engine that the first stream loads.

    Both share the model's weights. The model's file is read at once, the engine at its first use.
    The arguments and errors are those of :class:`bsmamba2.Separator`.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Engine | None = None,
        device: str = "auto",
        trust_engine: bool = False,
        speed: str = DEFAULT_SPEED,
        config: str | os.PathLike[str] | None = None,
        precision: str = "fp32",
    ) -> None:
        self._model: Model | None = None
        self._engine: Engine | None = None
        self._steps: StepEngine | None = None
        self._lock = RLock()
        self.speed = speed
        if model is None or isinstance(model, (str, os.PathLike)):
            self._model = open_model(
                model, config=config, trust_engine=trust_engine, precision=precision
            )
            self.manifest = self._model.manifest
            self.device = self._model.choose_device(device)
            require_speed(speed, self.device)
        elif config is not None:
            raise ModelError(
                f"config must be None with an engine, whose manifest states its settings; got "
                f"{os.fspath(config)!r}"
            )
        elif precision != "fp32":
            raise ModelError(
                f"precision must be 'fp32' with an engine, which has its own; got {precision!r}"
            )
        elif speed != DEFAULT_SPEED:
            raise DeviceError(
                f"speed must be {DEFAULT_SPEED!r} with an engine, which has its own; got {speed!r}"
            )
        elif device == "auto":
            self._engine = model
            self.manifest, self.device = model.manifest, model.device
        else:
            raise DeviceError(
                f"device must be 'auto' with an engine, which already has a device; got {device!r}"
            )

    @property
    def engine(self) -> Engine:
        """The engine for chunks, which is loaded onto the device at the first use.

        Raises:
            ModelError: the model is damaged or untrusted.
            DeviceError: the device cannot run it.
        """
        with self._lock:
            if self._engine is None:
                assert self._model is not None
                self._engine = self._model.chunk_engine(self.device, speed=self.speed)
            return self._engine

    @property
    def guesses(self) -> tuple[str, ...]:
        """See :attr:`bsmamba2.models.model.Model.guesses`."""
        return self._model.guesses if self._model else ()

    def new_stepper(self) -> Stepper:
        """Returns a stepper for one more stream, which shares the session but not the states.

        Raises:
            ModelError: the model has no graph for streams.
        """
        with self._lock:
            if isinstance(self.engine, StreamingEngine):
                return self.engine.new_stepper()
            if self._steps is None:
                self._steps = self._load_steps()
            return self._steps.another()

    def _load_steps(self) -> StepEngine:
        if self._model is None:
            raise ModelError(
                "lookahead_ms must be None with an engine, which runs whole chunks: create the "
                "Separator from a checkpoint, or from an .onnx exported with streaming=True"
            )
        return self._model.step_engine(self.device, speed=self.speed)

    @property
    def products(self) -> str:
        """The products that run: of the speed on a CPU in float32, else the precision."""
        precision = self.manifest.precision
        on_cpu = self._model is not None and self.device.kind == "cpu"
        return products(self.speed) if on_cpu and precision == "fp32" else precision
