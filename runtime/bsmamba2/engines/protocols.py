"""Protocols of the objects that run a chunk, or the steps of a stream."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from bsmamba2.audio.array import Audio
from bsmamba2.devices.device import Device
from bsmamba2.formats.manifest import Manifest


class Engine(Protocol):
    """Something that separates one chunk: an ONNX Runtime session, a TensorRT engine, a stub.

    An engine keeps no state between chunks and may be shared between threads. It runs one chunk per
    call; docs/architecture.md has the measurements for several.
    """

    @property
    def manifest(self) -> Manifest:
        """The model's manifest: stems, sample rate, lengths."""
        ...

    @property
    def device(self) -> Device:
        """Where it runs."""
        ...

    def run(self, chunk: Audio) -> Audio:
        """Separates one chunk.

        Args:
            chunk: (channels, samples) at the manifest's rate and channels; any number of samples.

        Returns:
            (stems, channels, samples), in the order of the manifest's stems.
        """
        ...


@runtime_checkable
class ReducedPrecisionEngine(Engine, Protocol):
    """An engine that computes in less than float32, where numbers may overflow."""

    def in_float32(self) -> Engine:
        """Returns the same model in float32, for chunks whose output is not finite.

        It is loaded on first use.
        """
        ...


@runtime_checkable
class StreamingEngine(Engine, Protocol):
    """An engine whose model can also run the steps of a stream."""

    def new_stepper(self) -> Stepper:
        """Returns a stepper for one more stream.

        Raises:
            ModelError: the model has no graph for streams.
        """
        ...


class Stepper(Protocol):
    """Something that separates a stream step by step, and keeps states between steps.

    A stepper runs one stream at a time, in one thread at a time.
    """

    @property
    def manifest(self) -> Manifest:
        """The model's manifest: stems, sample rate, grid of the spectra."""
        ...

    @property
    def device(self) -> Device:
        """Where it runs."""
        ...

    def reset(self) -> None:
        """Discards the stream: the next step starts a new one."""
        ...

    def step(self, block: Audio, lookahead: Audio) -> tuple[Audio, Audio]:
        """Separates the next block of the stream; the lookahead is what follows it.

        Args:
            block, lookahead: (batch, channels, frames, bins, 2), consecutive frames.

        Returns:
            Stems of both, each (batch, stems, channels, frames, bins, 2).
        """
        ...


class SharedStepper(Stepper, Protocol):
    """A stepper whose model other streams can use too, and that can run a whole spectrum."""

    def another(self) -> SharedStepper:
        """Returns a stepper for another stream, which shares the model but not the states."""
        ...

    def whole(self, spectrum: Audio) -> Audio:
        """Separates a whole spectrum in one run, without touching the stream.

        Args:
            spectrum: (batch, channels, frames, bins, 2), at least one frame.

        Returns:
            (batch, stems, channels, frames, bins, 2).
        """
        ...
