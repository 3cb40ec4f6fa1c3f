"""What runs a chunk, and what runs the steps of a stream: all that separation asks of a device."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from bsmamba2.audio.array import Audio
from bsmamba2.formats.manifest import Manifest


class Engine(Protocol):
    """Something that separates one chunk: an ONNX Runtime session, a TensorRT engine, a stub.

    An engine keeps no memory between chunks and may be shared between threads. It takes one chunk a
    call: docs/architecture.md has what was measured of more.
    """

    @property
    def manifest(self) -> Manifest:
        """What the engine separates, and at which rate."""
        ...

    @property
    def device(self) -> str:
        """Where it runs, in the words of ``--device``: ``cpu``, ``cuda:0``."""
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
    """An engine that computes in less than float32, where numbers may leave the range."""

    def in_float32(self) -> Engine:
        """The same model in float32, loaded when it is first asked for.

        A chunk that comes out non-finite is run again by it.
        """
        ...


class Stepper(Protocol):
    """Something that separates a stream step by step, with a memory of the steps before.

    A stepper serves one stream at a time and one thread at a time.
    """

    @property
    def manifest(self) -> Manifest:
        """What the stepper separates, at which rate, and the grid of its spectra."""
        ...

    @property
    def device(self) -> str:
        """Where it runs, as an engine's."""
        ...

    def reset(self) -> None:
        """Forgets the stream: the next step is the first of another."""
        ...

    def step(self, block: Audio, lookahead: Audio) -> tuple[Audio, Audio]:
        """Separates the next block of the stream, with a look at what follows it.

        Args:
            block, lookahead: (batch, channels, frames, bins, 2), what comes one after the other.

        Returns:
            The stems of both, (batch, stems, channels, frames, bins, 2).
        """
        ...
