"""A stream through a graph of steps: frames in the schedule's grid, in constant memory.

    samples ─ frames ─│ block │ lookahead │─ STEP ─ frames of the block ─ samples
                      ╰── held till all of both are there

A step has to wait for its block, its lookahead and half a window. So of the samples that came, at
most (block + lookahead − 1) · hop + n_fft − 1 are held back.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from bsmamba2.audio.channels import ChannelGroups
from bsmamba2.audio.latency import Jumps
from bsmamba2.audio.stft_stream import IstftStream, StftStream
from bsmamba2.errors import ModelError
from bsmamba2.pipeline.progress import require_not_cancelled

if TYPE_CHECKING:
    from collections.abc import Iterator
    from threading import Event

    from bsmamba2.audio.array import Audio
    from bsmamba2.audio.schedule import Schedule, Step
    from bsmamba2.formats.protocols import Stepper

PIECE = 1 << 16
"""Samples transformed at once: a frame takes several times the memory of its samples."""


class StepStream:
    """A stream through a stepper, at the stepper's rate.

    Args:
        stepper: runs the steps; this stream is all it runs meanwhile, from a reset on.
        schedule: the frames of a step.
        channels: of the audio. Default: the stepper's; for others see :mod:`bsmamba2.channels`.
        cancel: looked at before every step; where it is set, that push or flush raises
            :class:`bsmamba2.Cancelled`.

    Raises:
        AudioError: channels is out of range.
    """

    def __init__(
        self,
        stepper: Stepper,
        schedule: Schedule,
        channels: int | None = None,
        cancel: Event | None = None,
    ) -> None:
        manifest = stepper.manifest
        self._cancel = cancel
        self.manifest = manifest
        self._stepper = stepper
        self._schedule = schedule
        heard = manifest.channels
        self._groups = ChannelGroups(heard if channels is None else channels, heard)
        self._heard = (len(self._groups), heard)
        self._made = (len(self._groups), len(manifest.stems), heard)
        self._stft = StftStream(math.prod(self._heard), manifest.n_fft, manifest.hop)
        self._istft = IstftStream(math.prod(self._made), manifest.n_fft, manifest.hop)
        self._frames = np.zeros((*self._heard, 0, manifest.bins, 2), np.float32)
        self._came = self._went = 0
        stepper.reset()

    @property
    def jumps(self) -> Jumps:
        """When samples come out: a block of them, once its lookahead is there."""
        half, hop = self.manifest.n_fft // 2, self.manifest.hop
        block, lookahead = self._schedule.block, self._schedule.lookahead
        return Jumps((block + lookahead - 1) * hop + half, block * hop - half, block * hop)

    def push(self, audio: Audio) -> Audio:
        """Takes (channels, n); returns (stems, channels, m), the output that is certain by now.

        Raises:
            ModelError: the model failed to run, or returned what is not finite.
            Cancelled: the caller asked to stop.
        """
        parts = [self._out(np.zeros((math.prod(self._made), 0), np.float32))]
        for at in range(0, audio.shape[-1], PIECE):
            parts += self._piece(audio[:, at : at + PIECE])
        return np.concatenate(parts, axis=-1)

    def flush(self) -> Audio:
        """Ends the stream; returns (stems, channels, m), the rest of the output.

        Raises:
            ModelError, Cancelled: as :meth:`push`.
        """
        self._hold(self._stft.flush())
        parts = list(self._steps())
        if left := self._frames.shape[2]:
            parts.append(self._step(self._schedule.last(0, left)))
        rest = self._came - self._went
        parts.append(self._istft.flush(max(0, rest - sum(part.shape[-1] for part in parts))))
        # A song shorter than a frame was transformed with silence behind it.
        return self._out(np.concatenate(parts, axis=-1)[:, :rest])

    def _piece(self, audio: Audio) -> list[Audio]:
        self._came += audio.shape[-1]
        heard = self._groups.split(audio)
        self._hold(self._stft.push(heard.reshape(-1, heard.shape[-1])))
        return [self._out(samples) for samples in self._steps()]

    def _hold(self, frames: Audio) -> None:
        came = frames.reshape(*self._heard, *frames.shape[1:])
        self._frames = np.concatenate([self._frames, came], axis=2)

    def _steps(self) -> Iterator[Audio]:
        """Runs what steps there are; yields the samples, (rows, n), that each brings."""
        while step := self._schedule.next(0, self._frames.shape[2]):
            yield self._step(step)

    def _step(self, step: Step) -> Audio:
        require_not_cancelled(self._cancel)
        held = self._frames
        stems = self._stepper.step(held[:, :, step.block], held[:, :, step.lookahead])
        done = np.concatenate(stems, axis=3) if step.last else stems[0]
        if not np.isfinite(done).all():
            seconds = self._went / self.manifest.sample_rate
            raise ModelError(
                f"the model's output is not finite near {seconds:.1f} s: use a model of float32 "
                "precision"
            )
        self._frames = held[:, :, done.shape[3] :]
        return self._istft.push(done.reshape(math.prod(self._made), *done.shape[3:]))

    def _out(self, rows: Audio) -> Audio:
        self._went += rows.shape[-1]
        return self._groups.join(rows.reshape(*self._made, rows.shape[-1]))
