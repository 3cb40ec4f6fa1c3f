"""Runs a stream through a streaming graph in steps, in constant memory.

    samples ─ frames ─│ block │ lookahead │─ STEP ─ frames of the block ─ samples
                      ╰── held until both are complete

A step waits for its block, its lookahead and half a window. So at most
(block + lookahead − 1) · hop + n_fft − 1 samples are inside the stream.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from bsmamba2.audio.channels import ChannelGroups, OneSided
from bsmamba2.audio.latency import Jumps
from bsmamba2.audio.stft_stream import IstftStream, StftStream
from bsmamba2.errors import ModelError
from bsmamba2.pipeline.progress import require_not_cancelled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from threading import Event

    from bsmamba2.audio.array import Audio
    from bsmamba2.audio.schedule import Schedule, Step
    from bsmamba2.engines.protocols import Stepper

PIECE = 1 << 16
"""Samples transformed together: frames need several times the memory of their samples."""


class StepStream:
    """A stream through a stepper, at the stepper's rate.

    Args:
        stepper: runs the steps. It is reset, and must run no other stream meanwhile.
        schedule: the frames of a step.
        channels: number of channels of the audio. Default: the stepper's; for others see
            :mod:`bsmamba2.audio.channels`.
        cancel: checked before every step; if it is set, the push or flush raises
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
        model_channels = manifest.channels
        self._groups = ChannelGroups(
            model_channels if channels is None else channels, model_channels
        )
        self._one_sided = OneSided(manifest.sample_rate)
        self._input_shape = (len(self._groups), model_channels)
        self._output_shape = (len(self._groups), len(manifest.stems), model_channels)
        self._stft = StftStream(math.prod(self._input_shape), manifest.n_fft, manifest.hop)
        self._istft = IstftStream(math.prod(self._output_shape), manifest.n_fft, manifest.hop)
        self._frames = np.zeros((*self._input_shape, 0, manifest.bins, 2), np.float32)
        self._received = self._emitted = 0
        stepper.reset()

    @property
    def jumps(self) -> Jumps:
        """When samples are emitted: one block at a time, once its lookahead is complete."""
        half, hop = self.manifest.n_fft // 2, self.manifest.hop
        block, lookahead = self._schedule.block, self._schedule.lookahead
        return Jumps((block + lookahead - 1) * hop + half, block * hop - half, block * hop)

    def push(self, audio: Audio) -> Audio:
        """Takes (channels, n); returns (stems, channels, m), the output finished so far.

        Raises:
            ModelError: the model failed to run, or its output is not finite.
            Cancelled: the caller stopped it.
        """
        parts = [self._emit(np.zeros((math.prod(self._output_shape), 0), np.float32))]
        for at in range(0, audio.shape[-1], PIECE):
            parts += self._push_piece(audio[:, at : at + PIECE])
        return np.concatenate(parts, axis=-1)

    def flush(self) -> Audio:
        """Ends the stream; returns (stems, channels, m), the remaining output.

        Raises:
            ModelError, Cancelled: as :meth:`push`.
        """
        self._hold(self._stft.flush())
        parts = list(self._steps())
        if left := self._frames.shape[2]:
            parts.append(self._step(self._schedule.last(0, left)))
        rest = self._received - self._emitted
        parts.append(self._istft.flush(max(0, rest - sum(part.shape[-1] for part in parts))))
        # A song shorter than a frame was padded with silence before its transform.
        return self._emit(np.concatenate(parts, axis=-1)[:, :rest])

    def _push_piece(self, audio: Audio) -> list[Audio]:
        self._received += audio.shape[-1]
        groups = self._groups.split(audio)
        self._hold(self._stft.push(groups.reshape(-1, groups.shape[-1])))
        return [self._emit(samples) for samples in self._steps()]

    def _hold(self, frames: Audio) -> None:
        added = frames.reshape(*self._input_shape, *frames.shape[1:])
        self._frames = np.concatenate([self._frames, added], axis=2)

    def _steps(self) -> Iterator[Audio]:
        """Runs the steps that are complete; yields the samples of each, (rows, n)."""
        while step := self._schedule.next(0, self._frames.shape[2]):
            yield self._step(step)

    def _step(self, step: Step) -> Audio:
        require_not_cancelled(self._cancel)
        held = self._frames
        seen = held[:, :, step.block.start : step.lookahead.stop]
        silent = [self._one_sided.silent_channel(pair, self._emitted) for pair in seen]
        seen = _each(OneSided.doubled, seen, silent)
        cut = step.block.stop - step.block.start
        stems = self._stepper.step(seen[:, :, :cut], seen[:, :, cut:])
        done = np.concatenate(stems, axis=3) if step.last else stems[0]
        done = _each(OneSided.undoubled, done, silent)
        if not np.isfinite(done).all():
            seconds = self._emitted / self.manifest.sample_rate
            raise ModelError(
                f"the model's output is not finite near {seconds:.1f} s: use a model with "
                "precision fp32"
            )
        self._frames = held[:, :, done.shape[3] :]
        return self._istft.push(done.reshape(math.prod(self._output_shape), *done.shape[3:]))

    def _emit(self, rows: Audio) -> Audio:
        self._emitted += rows.shape[-1]
        return self._groups.join(rows.reshape(*self._output_shape, rows.shape[-1]))


def _each(
    change: Callable[[Audio, int], Audio], groups: Audio, silent: Sequence[int | None]
) -> Audio:
    """Returns the groups, changed where they have a silent channel."""
    if all(channel is None for channel in silent):
        return groups
    pairs = zip(groups, silent, strict=True)
    return np.stack([group if at is None else change(group, at) for group, at in pairs])
