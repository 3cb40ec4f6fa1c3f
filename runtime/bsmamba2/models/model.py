"""A model: a file that is read and hashed once and provides the manifest and the engines."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from bsmamba2.devices.device import Backend, choose
from bsmamba2.devices.products import DEFAULT_SPEED, products
from bsmamba2.engines.ort_providers import BACKENDS
from bsmamba2.engines.ort_session import software
from bsmamba2.engines.step_engine import StepEngine, SteppedEngine
from bsmamba2.models.check import CHECK_STEPS, FAST_SNR_DB
from bsmamba2.models.verdict import require_verdict

if TYPE_CHECKING:
    from bsmamba2.devices.device import Device
    from bsmamba2.engines.protocols import Engine
    from bsmamba2.formats.manifest import Manifest
    from bsmamba2.models.graph import Graph


class Model(ABC):
    """A model file that has been read but not loaded; see ``bsmamba2.models.open_model``.

    On a CPU its engines compute with the same arrays of weights.
    """

    backends: ClassVar[Sequence[tuple[str, Backend]]] = BACKENDS
    """The kinds of device that can run the model, best first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.guesses: tuple[str, ...] = ()
        """Names of settings that neither the file, its yaml nor the catalogue states."""
        self.origins: Mapping[str, tuple[str, ...]] = {}
        """The settings of a checkpoint by where they come from: ``yaml``, ``catalogue``, ``file``
        or ``assumed``. Empty for other models, whose manifest states all."""

    @property
    @abstractmethod
    def manifest(self) -> Manifest:
        """The model's stems, sample rate and other properties."""

    def choose_device(self, requested: str) -> Device:
        """Returns the device of that name; for ``auto``, the best that can run this model.

        Raises:
            DeviceError: there is no such device, or it cannot run this model.
        """
        return choose(requested, self.backends)

    @abstractmethod
    def chunk_engine(
        self, device: Device, *, verify: bool = True, speed: str = DEFAULT_SPEED
    ) -> Engine:
        """Loads an engine for whole chunks.

        Args:
            device: where the engine runs.
            speed: the products on a CPU, see :mod:`bsmamba2.devices.products`.
            verify: whether the engine must reproduce the model's check, unless it has already done
                so on this machine.

        Raises:
            ModelError: the model is damaged or untrusted.
            DeviceError: the device cannot run it, or does not reproduce its check.
            MissingExtra: the software that runs it is not installed.
        """

    @abstractmethod
    def step_engine(
        self, device: Device, *, verify: bool = True, speed: str = DEFAULT_SPEED
    ) -> StepEngine:
        """Loads an engine for the steps of a stream.

        Raises:
            ModelError: as for :meth:`chunk_engine`, or the model has no graph for streams.
            DeviceError, MissingExtra: as for :meth:`chunk_engine`.
        """

    @abstractmethod
    def graph(self, *, io: str = "spectrum") -> Graph:
        """Returns the graph, from which another kind of engine can be built.

        Args:
            io: input of a checkpoint's graph, ``spectrum`` or ``waveform``, if there are both; an
                exported file has only its own.

        Raises:
            ModelError: the model is an engine already.
        """

    def checkable_engines(self, device: Device) -> Iterator[tuple[str, Engine]]:
        """Yields each way to run the model: its name, and an unverified engine.

        The engines are for :func:`bsmamba2.models.check.reproduce`.
        """
        if not self.manifest.streaming:
            yield "whole chunks", self.chunk_engine(device, verify=False)
        if self.can_stream:
            steps = self.step_engine(device, verify=False)
            yield "a stream", SteppedEngine(steps, CHECK_STEPS)

    @property
    def can_stream(self) -> bool:
        """Whether the model has a graph for streams."""
        return self.manifest.streaming

    @abstractmethod
    def add_checks(
        self, report: Callable[[str], None] = lambda _: None, folder: Path | None = None
    ) -> None:
        """Computes the checks of a checkpoint; exports already contain theirs.

        Args:
            report: called with a line of text before each check is computed.
            folder: where the checks are kept. Default: this user's cache.

        Raises:
            ModelError: the model's output is not finite, or the folder cannot be written.
        """


def verify_chunks(engine: Engine, graph: Graph, speed: str = DEFAULT_SPEED) -> None:
    """Runs the check of an ONNX Runtime engine's model, unless it has passed on this machine.

    A faster speed is less exact, so it has to agree with the check less closely.

    Raises:
        DeviceError: the engine does not reproduce the check.
    """
    if graph.manifest.check is not None:  # hashing a large file takes time
        about = {"model": graph.sha256, **software()}
        if engine.device.kind == "cpu":
            about |= {"speed": speed, "products": products(speed)}
        require_verdict(engine, about, FAST_SNR_DB if speed == "fast" else None)


def verify_steps(steps: StepEngine, graph: Graph, speed: str = DEFAULT_SPEED) -> None:
    """Works like :func:`verify_chunks`, for the steps of a stream."""
    verify_chunks(SteppedEngine(steps, CHECK_STEPS), graph, speed)
