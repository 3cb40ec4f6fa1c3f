"""A model on a device, in the two ways in which it can be run."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from bsmamba2.errors import DeviceError, ModelError

if TYPE_CHECKING:
    from collections.abc import Callable

    from bsmamba2.engines.step_engine import StepEngine
    from bsmamba2.formats.protocols import Engine


class Loaded:
    """An engine of whole chunks, and the steps of a stream once they are asked for.

    The arguments and errors are those of :class:`bsmamba2.Separator`.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Engine | None = None,
        device: str = "auto",
        trust_engine: bool = False,
    ) -> None:
        self.engine: Engine
        self._open_steps: Callable[[], StepEngine] | None = None
        self._steps: StepEngine | None = None
        self._lock = Lock()
        if model is None or isinstance(model, (str, os.PathLike)):
            # Here, since this is what imports an ONNX Runtime.
            from bsmamba2.models import model as models

            self.engine = models.open_engine(model, device, trust_engine=trust_engine)
            if Path(model or "").suffix != ".engine":
                self._open_steps = partial(models.open_step_engine, model, self.engine.device)
        elif device == "auto":
            self.engine = model
        else:
            raise DeviceError(
                f"device must be 'auto' with an engine, which has one; {device!r} came"
            )

    def another_stepper(self) -> StepEngine:
        """The steps for one more stream: the model is loaded once, the states are its own.

        Raises:
            ModelError: the model has no graph for streams.
        """
        from bsmamba2.engines.step_engine import StepsAsEngine

        with self._lock:
            if self._steps is None:
                if isinstance(self.engine, StepsAsEngine):
                    self._steps = self.engine.steps
                elif self._open_steps is None:
                    raise ModelError(
                        "lookahead_ms must be None with an engine, which runs whole chunks: make "
                        "the Separator from a checkpoint, or from an .onnx exported with "
                        "--streaming"
                    )
                else:
                    self._steps = self._open_steps()
            return self._steps.another()
