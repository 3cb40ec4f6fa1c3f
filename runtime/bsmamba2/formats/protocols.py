"""The interfaces that separation needs of a device: one for chunks, one for steps of a stream."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from bsmamba2.audio.array import Audio
from bsmamba2.formats.manifest import Manifest


class Engine(Protocol):
    """Separates one chunk: an ONNX Runtime session, a TensorRT engine, a stub.

    An engine keeps no memory between chunks and may be shared between threads. It takes one chunk
    per call; docs/architecture.md has measurements of larger batches.
    """

    @property
    def manifest(self) -> Manifest:
        """The stems, the sample rate and the sizes of the engine."""
        ...

    @property
    def device(self) -> str:
        """The device that it runs on, spelled as for ``--device``: ``cpu``, ``cuda:0``."""
        ...

    def run(self, chunk: Audio) -> Audio:
        """Separates one chunk.

        Args:
            chunk: (channels, samples) at the manifest's rate and channels; any number of samples.

        Returns:
            (stems, channels, samples), the manifest's stems in its order.
        """
        ...


@runtime_checkable
class ReducedPrecisionEngine(Engine, Protocol):
    """An engine that computes in less than float32, where values may overflow."""

    def in_float32(self) -> Engine:
        """Returns the same model in float32, loaded on first use.

        It runs a chunk again whose stems are not finite.
        """
        ...


class Stepper(Protocol):
    """Separates a stream step by step, with a memory of the steps before.

    A stepper serves one stream and one thread at a time.
    """

    @property
    def manifest(self) -> Manifest:
        """The stems, the sample rate, and the grid of the spectra."""
        ...

    @property
    def device(self) -> str:
        """The device that it runs on; see :attr:`Engine.device`."""
        ...

    def reset(self) -> None:
        """Clears the memory: the next step starts another stream."""
        ...

    def step(self, block: Audio, lookahead: Audio) -> tuple[Audio, Audio]:
        """Separates the next block of the stream, given the frames that follow it.

        Args:
            block, lookahead: consecutive spectra, (batch, channels, frames, bins, 2).

        Returns:
            The stems of both, (batch, stems, channels, frames, bins, 2).
        """
        ...
