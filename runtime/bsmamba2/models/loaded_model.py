"""A model on a device: an engine for chunks, and a stepper for each stream."""

from __future__ import annotations

import os
from threading import RLock
from typing import TYPE_CHECKING

from bsmamba2.engines.step_engine import StepEngine, StepsAsEngine
from bsmamba2.errors import DeviceError, ModelError
from bsmamba2.models.model_file import from_any_folder
from bsmamba2.models.open_model import open_model

if TYPE_CHECKING:
    from bsmamba2.engines.protocols import Engine
    from bsmamba2.models.model import Model


class LoadedModel:
    """A model with an engine for chunks, and a step engine that the first stream loads.

    Both share the model's weights. The model's file is read at once, the engine at its first use.
    The arguments and errors are those of :class:`bsmamba2.Separator`.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Engine | None = None,
        device: str = "auto",
        trust_engine: bool = False,
    ) -> None:
        self._model: Model | None = None
        self._engine: Engine | None = None
        self._steps: StepEngine | None = None
        self._lock = RLock()
        if model is None or isinstance(model, (str, os.PathLike)):
            # An absolute path, because the current folder may change before a copy is made.
            named = from_any_folder(model) if model else None
            self._arguments = named, device, trust_engine
            self._model = open_model(model, trust_engine=trust_engine)
            self.manifest = self._model.manifest
            self.device = self._model.choose_device(device)
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
                self._engine = self._model.chunk_engine(self.device)
            return self._engine

    def arguments_for_a_copy(self) -> tuple[str | None, str, bool]:
        """Returns the arguments that load this model again, from any folder and process.

        Raises:
            ModelError: it was created from an engine.
        """
        if self._model is None:
            raise ModelError(
                "model must be a name or a path to copy or pickle a Separator; got "
                f"{self._engine!r}: create another Separator from the same engine"
            )
        return self._arguments

    def new_stepper(self) -> StepEngine:
        """Returns a stepper for one more stream, which shares the session but not the states.

        Raises:
            ModelError: the model has no graph for streams.
        """
        with self._lock:
            if self._steps is None:
                self._steps = self._load_steps()
            return self._steps.another()

    def _load_steps(self) -> StepEngine:
        if isinstance(self.engine, StepsAsEngine):
            return self.engine.steps
        if self._model is None:
            raise ModelError(
                "lookahead_ms must be None with an engine, which runs whole chunks: create the "
                "Separator from a checkpoint, or from an .onnx exported with streaming=True"
            )
        return self._model.step_engine(self.device)
