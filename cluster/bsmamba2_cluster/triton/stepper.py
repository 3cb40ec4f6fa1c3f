"""The steps of a stream on a Triton server, which keeps the states between them."""

from __future__ import annotations

import secrets
from concurrent.futures import Future, wait

import numpy as np

from bsmamba2.audio.array import Audio
from bsmamba2.devices.device import Device
from bsmamba2.errors import AudioError, DeviceError
from bsmamba2.formats.manifest import Manifest
from bsmamba2_cluster.triton.connection import Connection, StreamPlace
from bsmamba2_cluster.triton.tensors import require_shape

_OUTPUTS = ("block_stems", "lookahead_stems")


class TritonStepper:
    """A streaming model on a server, as a :class:`~bsmamba2.engines.protocols.SharedStepper`.

    Each item of a batch is a sequence of the server, because Triton joins no states. A step is
    never sent twice. After one that failed the states are unknown, and the stream must be reset.

    Args:
        connection: the server.
        model: the model's name on the server.
        manifest: of the streaming model.
        device: where it runs.
    """

    def __init__(
        self, connection: Connection, model: str, manifest: Manifest, device: Device
    ) -> None:
        self.manifest = manifest
        self.device = device
        self._connection, self._model = connection, model
        self._streams: list[int] = []
        self._is_lost = False

    def another(self) -> TritonStepper:
        """See :meth:`bsmamba2.engines.protocols.SharedStepper.another`."""
        return TritonStepper(self._connection, self._model, self.manifest, self.device)

    def reset(self) -> None:
        """Discards the stream, and lets the server free its states without waiting for that."""
        frame = np.zeros((1, self.manifest.channels, 1, self.manifest.bins, 2), np.float32)
        for stream in self._streams:
            self._send(frame, frame, StreamPlace(stream, is_last=True))
        self._streams, self._is_lost = [], False

    def step(self, block: Audio, lookahead: Audio) -> tuple[Audio, Audio]:
        """See :meth:`bsmamba2.engines.protocols.Stepper.step`.

        Raises:
            AudioError: the batch changed during the stream.
            ModelError: the server refuses the step.
            DeviceError: the server did not answer, or no longer has the states.
        """
        batch = block.shape[0]
        if self._is_lost:
            raise DeviceError(
                f"{self._connection.options.url} failed in an earlier step of this stream: reset "
                "the stream"
            )
        if self._streams and len(self._streams) != batch:
            raise AudioError(
                f"block must have the stream's batch, {len(self._streams)}; got {batch}: reset "
                "before another stream"
            )
        is_first = not self._streams
        if is_first:
            self._streams = [_new_number() for _ in range(batch)]
        self._is_lost = True  # until every answer is here
        stems = self._run(
            block, lookahead, [StreamPlace(stream, is_first) for stream in self._streams]
        )
        self._is_lost = False
        return stems

    def whole(self, spectrum: Audio) -> Audio:
        """See :meth:`bsmamba2.engines.protocols.SharedStepper.whole`."""
        # As in the last step of a stream, the last frame is the lookahead.
        places = [StreamPlace(_new_number(), is_first=True, is_last=True) for _ in spectrum]
        stems = self._run(spectrum[:, :, :-1], spectrum[:, :, -1:], places)
        return np.concatenate(stems, axis=3)

    def _run(
        self, block: Audio, lookahead: Audio, places: list[StreamPlace]
    ) -> tuple[Audio, Audio]:
        requests = [
            self._send(block[at : at + 1], lookahead[at : at + 1], place)
            for at, place in enumerate(places)
        ]
        wait(requests)
        answers = [request.result() for request in requests]
        stems = [np.concatenate(parts) for parts in zip(*answers, strict=True)]
        for values, spectrum in zip(stems, (block, lookahead), strict=True):
            batch, *sizes = spectrum.shape
            require_shape(values, (batch, len(self.manifest.stems), *sizes), self._model)
        return stems[0], stems[1]

    def _send(self, block: Audio, lookahead: Audio, place: StreamPlace) -> Future[list[Audio]]:
        inputs = {"block": block, "lookahead": lookahead}
        return self._connection.infer(self._model, inputs, _OUTPUTS, place)


def _new_number() -> int:
    """Returns a number that no other stream of any client has; 0 would mean no stream."""
    return secrets.randbits(63) | 1
