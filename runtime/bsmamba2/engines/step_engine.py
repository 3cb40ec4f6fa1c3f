"""Runs the steps of a stream: spectra in and out, with the states kept on the device."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np

from bsmamba2.audio import stft
from bsmamba2.audio.array import Audio
from bsmamba2.audio.schedule import Schedule
from bsmamba2.devices import capture
from bsmamba2.devices.capture import Held
from bsmamba2.devices.device import CPU, Device
from bsmamba2.devices.products import DEFAULT_SPEED
from bsmamba2.engines.memory_limit import FirstRuns
from bsmamba2.engines.ort_import import import_onnxruntime
from bsmamba2.engines.ort_session import (
    first_line,
    open_session,
    require_float32,
    require_shape,
)
from bsmamba2.engines.protocols import SharedStepper
from bsmamba2.errors import AudioError, ModelError, printable
from bsmamba2.formats.manifest import Manifest
from bsmamba2.formats.onnx_file import OnnxFile


class StepEngine:
    """A streaming model in an ONNX Runtime session, and the states of one stream.

    States are large (195 MB at the paper's size) and change with every step, so they never pass
    through NumPy. There are two sets of buffers on the session's device: a step reads one and
    writes the other, then they swap. A StepEngine must not be shared between threads.

    Args:
        manifest: replaces the file's own manifest if a checkpoint is poured into the file.

    The other arguments and the errors are those of
    :func:`bsmamba2.engines.ort_session.open_session`.
    """

    def __init__(
        self,
        file: OnnxFile,
        device: Device = CPU,
        weights: Mapping[str, Audio] | None = None,
        manifest: Manifest | None = None,
        threads: int | None = None,
        kernel: bool = True,
        speed: str = DEFAULT_SPEED,
    ) -> None:
        if not file.manifest.streaming:
            raise ModelError(
                f"{file.path.name} takes whole chunks, not the steps of a stream: export it with "
                "streaming=True"
            )
        self.manifest = manifest or file.manifest
        self.device = device
        self.first_runs: FirstRuns | None = None
        """Limits the memory of runs, if the graph is untrusted."""
        session = open_session(file, device, weights, threads, kernel, speed=speed)
        self._held = Held(session)
        states = self.manifest.states
        inputs, outputs = session.get_inputs(), session.get_outputs()
        require_float32(file, inputs, outputs)
        taken = {"block", "lookahead", *(state.name for state in states)}
        returned = {f"next_{state.name}" for state in states}
        if {value.name for value in inputs} != taken:
            raise ModelError(
                f"{file.path.name} does not take the inputs that its manifest lists "
                f"({printable(', '.join(sorted(taken)))}): export it again"
            )
        if {value.name for value in outputs} != {"block_stems", "lookahead_stems", *returned}:
            raise ModelError(
                f"{file.path.name} does not return the stems and the states that its manifest "
                "lists: export it again"
            )
        self._make = import_onnxruntime().OrtValue
        self._memory = "cpu" if device.kind == "cpu" else "cuda", device.index
        # A state of batch 1 broadcasts, so the same initial states serve any batch.
        zeros = [np.zeros((1, *state.shape[1:]), np.float32) for state in states]
        with capture.using(device):
            make = self._make.ortvalue_from_numpy
            self._start = Held(*(make(zero, *self._memory) for zero in zeros))
        self._carried, self._batch = self._start, 0
        self._buffers: list[Held] = []

    @property
    def _session(self) -> Any:
        return self._held.objects[0]

    def another(self) -> StepEngine:
        """Returns an engine for another stream, which shares the session but not the states.

        Each stream may run in its own thread.
        """
        other = copy.copy(self)
        other._carried, other._batch, other._buffers = self._start, 0, []
        return other

    def reset(self) -> None:
        """Discards the stream: the next step starts a new one."""
        self._carried = self._start

    def step(self, block: Audio, lookahead: Audio) -> tuple[Audio, Audio]:
        """Separates the next block of the stream; the lookahead is what follows it.

        :class:`~bsmamba2.audio.schedule.Schedule` determines the frames of a step. A step that
        raises leaves the stream where it was.

        Args:
            block: (batch, channels, frames, bins, 2), float32; each item of the batch is a stream.
            lookahead: the frames after the block, at least one.

        Returns:
            The stems of both, (batch, stems, channels, frames, bins, 2).

        Raises:
            AudioError: a spectrum has a wrong shape or type, or the batch changed.
            ModelError: ONNX Runtime failed to run the model.
        """
        self._check(block, lookahead)
        with capture.using(self.device):
            written = self._free_buffers(block.shape[0])
            stems = self._run(block, lookahead, self._carried.objects, written.objects)
        self._carried = written
        return stems

    def whole(self, spectrum: Audio) -> Audio:
        """Separates a whole spectrum in one run, without touching the stream.

        Args:
            spectrum: (batch, channels, frames, bins, 2), float32, at least one frame.

        Returns:
            (batch, stems, channels, frames, bins, 2).

        Raises:
            ModelError: ONNX Runtime failed to run the model.
        """
        # As in the last step of a stream, the last frame is the lookahead.
        with capture.using(self.device):
            stems = self._run(spectrum[:, :, :-1], spectrum[:, :, -1:], self._start.objects, [])
        return np.concatenate(stems, axis=3)

    def _run(
        self, block: Audio, lookahead: Audio, before: list[Any], after: list[Any]
    ) -> tuple[Audio, Audio]:
        """Runs the session from ``before``; writes the next states to ``after``, if not empty."""
        if self.first_runs is None:
            return self._run_session(block, lookahead, before, after)
        batch, channels, frames = block.shape[:3]
        samples = (frames + lookahead.shape[2]) * self.manifest.hop
        with self.first_runs.limited(batch * channels * samples * np.dtype(np.float32).itemsize):
            return self._run_session(block, lookahead, before, after)

    def _run_session(
        self, block: Audio, lookahead: Audio, before: list[Any], after: list[Any]
    ) -> tuple[Audio, Audio]:
        binding = self._session.io_binding()
        for name in ("block_stems", "lookahead_stems"):
            binding.bind_output(name, "cpu")
        names = [state.name for state in self.manifest.states]
        for name, value in zip(names, before, strict=True):
            binding.bind_ortvalue_input(name, value)
        for name, value in zip(names, after, strict=bool(after)):
            binding.bind_ortvalue_output(f"next_{name}", value)
        binding.bind_cpu_input("block", np.ascontiguousarray(block))
        binding.bind_cpu_input("lookahead", np.ascontiguousarray(lookahead))
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:  # the binding raises bare exceptions of many classes
            raise ModelError(f"{self.manifest.name} failed to run: {first_line(error)}") from None
        stems = [value.numpy() for value in binding.get_outputs()[:2]]
        for value, spectrum in zip(stems, (block, lookahead), strict=True):
            batch, *sizes = spectrum.shape
            require_shape(value, (batch, len(self.manifest.stems), *sizes), self.manifest.name)
        return stems[0], stems[1]

    def _free_buffers(self, batch: int) -> Held:
        """Returns the set of buffers that the next step writes to."""
        if batch != self._batch:
            self._buffers = []  # frees the old buffers before the new ones are allocated
            self._buffers = [self._allocate(batch) for _ in range(2)]
            self._batch = batch
        one, other = self._buffers
        return other if self._carried is one else one

    def _allocate(self, batch: int) -> Held:
        make = self._make.ortvalue_from_shape_and_type
        shapes = [state.shape for state in self.manifest.states]
        return Held(*(make((batch * n, *sizes), np.float32, *self._memory) for n, *sizes in shapes))

    def _check(self, block: Audio, lookahead: Audio) -> None:
        manifest = self.manifest
        for name, spectrum, least in (("block", block, 0), ("lookahead", lookahead, 1)):
            batch, frames = (*spectrum.shape[::2], 0, 0)[:2]
            expected = (batch, manifest.channels, frames, manifest.bins, 2)
            if spectrum.shape != expected or spectrum.dtype != np.float32 or frames < least:
                raise AudioError(
                    f"{name} must be float32 of (batch, {manifest.channels}, frames ≥ {least}, "
                    f"{manifest.bins}, 2); got {spectrum.dtype} of {spectrum.shape}"
                )
        streams = block.shape[0] if self._carried is self._start else self._batch
        for name, spectrum in (("block", block), ("lookahead", lookahead)):
            if spectrum.shape[0] != streams:
                raise AudioError(
                    f"{name} must have the stream's batch, {streams}; got {spectrum.shape[0]}: "
                    "reset before another stream"
                )


class StepsAsEngine:
    """A streaming model as an engine for whole chunks; may be shared between threads."""

    def __init__(self, steps: SharedStepper) -> None:
        self.steps = steps
        self.manifest = steps.manifest
        self.device = steps.device

    def new_stepper(self) -> SharedStepper:
        """See :meth:`bsmamba2.engines.protocols.StreamingEngine.new_stepper`."""
        return self.steps.another()

    def run(self, chunk: Audio) -> Audio:
        """See :meth:`bsmamba2.engines.protocols.Engine.run`."""
        n_fft, hop, samples = self.manifest.n_fft, self.manifest.hop, chunk.shape[-1]
        stems = self._separate(stft.stft(chunk, n_fft, hop)[np.newaxis])[0]
        return stft.istft(stems, n_fft, hop, samples)

    def _separate(self, spectrum: Audio) -> Audio:
        return self.steps.whole(spectrum)


class SteppedEngine(StepsAsEngine):
    """A streaming model as an engine that runs every chunk as a separate stream, in steps.

    Args:
        steps: the streaming model.
        schedule: the frames of a step.
    """

    def __init__(self, steps: SharedStepper, schedule: Schedule) -> None:
        super().__init__(steps)
        self._schedule = schedule

    def _separate(self, spectrum: Audio) -> Audio:
        stream = self.steps.another()
        done: list[Audio] = []
        for step in self._schedule.steps(spectrum.shape[2]):
            stems = stream.step(spectrum[:, :, step.block], spectrum[:, :, step.lookahead])
            done += stems if step.last else stems[:1]
        return np.concatenate(done, axis=3)
