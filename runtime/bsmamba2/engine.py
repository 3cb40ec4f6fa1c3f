"""What runs a chunk: the one thing that separation asks of a device."""

from __future__ import annotations

from typing import Protocol

from bsmamba2.array import Audio
from bsmamba2.manifest import Manifest


class Engine(Protocol):
    """Something that separates one chunk: an ONNX Runtime session, a TensorRT engine, a stub.

    An engine keeps no memory between chunks and may be shared between threads.
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
