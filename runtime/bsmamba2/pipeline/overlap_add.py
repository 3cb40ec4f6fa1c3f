"""Overlap-add: runs a song through an engine in crossfading chunks, in constant memory.

The grid. Chunk k starts at k · hop, hop = round(chunk · (1 − overlap)); the last chunk is the first
one that reaches the end. If it would run past the end, it is moved back to end there, so that it
has a whole chunk of context. Its output is still used only from its position on the grid onwards:

    k = 0   |‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾\\
    k = 1             /‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾\\
    k = 2               .........../‾‾‾‾‾‾‾|     moved back; the dots are context
            0         hop       2·hop      end

The weights. Neighbouring chunks share chunk − hop samples. A chunk fades in linearly over the
samples it shares with the previous chunk (at most half a chunk), and fades out over those it shares
with the next; the start of the first chunk and the end of the last do not fade. The sum of the
weighted outputs is divided by the sum of the weights, so the weights sum to one at any overlap. No
weight is 0, so nothing is divided by 0.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bsmamba2.audio.channels import ChannelGroups, OneSided
from bsmamba2.audio.fifo import Fifo
from bsmamba2.audio.latency import Jumps
from bsmamba2.engines.protocols import ReducedPrecisionEngine
from bsmamba2.errors import AudioError, ModelError
from bsmamba2.pipeline.progress import require_not_cancelled

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor
    from threading import Event

    from bsmamba2.audio.array import Audio, Exact
    from bsmamba2.engines.protocols import Engine

log = logging.getLogger("bsmamba2")


def hop_samples(chunk: int, overlap: float) -> int:
    """Returns the samples from the start of one chunk to the start of the next.

    Raises:
        AudioError: overlap is not a fraction in [0, 1).
    """
    require_overlap(overlap)
    return max(1, round(chunk * (1 - overlap)))


def require_overlap(overlap: float) -> None:
    """Requires a valid overlap.

    Raises:
        AudioError: overlap is not a fraction in [0, 1).
    """
    if not 0 <= overlap < 1:
        raise AudioError(
            f"overlap must be a fraction of the chunk in [0, 1); got {overlap:g}: MSST's "
            "num_overlap 2 is 0.5, its 4 is 0.75"
        )


def linear_window(chunk: int, hop: int) -> Exact:
    """Returns a chunk's weights, (chunk,); its linear fades and its neighbours' sum to one."""
    fade = min(chunk - hop, chunk // 2)
    window = np.ones(chunk)
    ramp = (np.arange(fade) + 0.5) / max(fade, 1)
    window[:fade] = ramp
    window[chunk - fade :] = ramp[::-1]
    return window


class _Run(NamedTuple):
    """One run of the engine, which may still be in progress."""

    stems: Callable[[], Audio]
    weights: Exact


class OverlapAdd:
    """Runs a stream through an engine, at the engine's rate, in the memory of a few chunks.

    A sample is returned as soon as no later chunk can change it. For a chunk of digital silence the
    output is silence, and the engine does not run.

    Args:
        engine: runs the chunks, of ``engine.manifest.chunk`` samples.
        overlap: of neighbouring chunks, a fraction of the chunk in [0, 1).
        channels: number of channels of the audio. Default: the engine's; for others see
            :mod:`bsmamba2.audio.channels`.
        pool: threads that run the engine while the caller continues. Then the push that starts
            a chunk returns the output of the previous one: the same samples, and one chunk more of
            memory.
        cancel: checked before every run of the engine; if it is set, the push or flush raises
            :class:`bsmamba2.Cancelled`.

    Raises:
        AudioError: overlap or channels is out of range.
    """

    def __init__(
        self,
        engine: Engine,
        overlap: float,
        channels: int | None = None,
        pool: Executor | None = None,
        cancel: Event | None = None,
    ) -> None:
        manifest = engine.manifest
        self._pool = pool
        self._cancel = cancel
        self._running: _Run | None = None
        channels = manifest.channels if channels is None else channels
        self.manifest = manifest
        self._engine = engine
        self._groups = ChannelGroups(channels, manifest.channels)
        self._one_sided = OneSided(manifest.sample_rate)
        self._shape = (len(manifest.stems), channels)
        self._chunk = manifest.chunk
        self._hop = hop_samples(self._chunk, overlap)
        self._window = linear_window(self._chunk, self._hop)
        # The input is kept from the start of the previous chunk on, because the last chunk may be
        # moved back that far. The sums start at the next chunk.
        self._input = Fifo(channels, np.float32)
        self._lead = 0
        self._start = 0
        self.float32_chunks = 0
        """Number of chunks whose output was not finite and that ran again in float32."""
        self._sum = np.zeros((*self._shape, self._chunk))
        self._weight = np.zeros(self._chunk)

    @property
    def jumps(self) -> Jumps:
        """When samples are emitted: one hop at a time, once a chunk plus one sample was received;
        with a pool one hop later."""
        return Jumps(self._chunk + 1, self._hop, self._hop)

    def push(self, audio: Audio) -> Audio:
        """Takes (channels, n); returns (stems, channels, m), the output finished so far.

        Raises:
            ModelError: the engine returned another shape, or samples that are not finite.
            Cancelled: the caller stopped it.
        """
        self._input.append(audio)
        parts = [np.zeros((*self._shape, 0), np.float32)]
        # If more than a chunk of input is held, this chunk is not the last.
        while len(self._input) - self._lead > self._chunk:
            parts += self._inner_chunk()
        return np.concatenate(parts, axis=-1)

    def flush(self) -> Audio:
        """Ends the stream; returns (stems, channels, m), the remaining output.

        Raises:
            ModelError, Cancelled: as :meth:`push`.
        """
        parts = [np.zeros((*self._shape, 0), np.float32)]
        if self._running:
            parts.append(self._end(self._running, self._hop))
        held = len(self._input)
        rest = held - self._lead
        if rest:
            whole = min(held, self._chunk)
            parts.append(self._end(self._begin(held - whole, rest, last=True), rest))
        return np.concatenate(parts, axis=-1)

    def _inner_chunk(self) -> list[Audio]:
        run = self._begin(self._lead, self._chunk, last=False)
        self._input.drop(self._lead)
        self._lead = self._hop
        self._start += self._hop
        ended = self._running if self._pool else run
        self._running = run if self._pool else None
        return [self._end(ended, self._hop)] if ended else []

    def _begin(self, start: int, count: int, last: bool) -> _Run:
        """Starts a run on the input from ``start``; only its last ``count`` outputs are used."""
        stop = min(start + self._chunk, len(self._input))
        parts, at = self._groups.split(self._input.peek(start, stop)), self._start
        weights = self._weights(last)[:count]

        def stems() -> Audio:
            return self._groups.join(np.stack([self._separate(part, at) for part in parts]))

        return _Run(self._pool.submit(stems).result if self._pool else stems, weights)

    def _end(self, run: _Run, done: int) -> Audio:
        """Adds the output of a run to the sums; returns the samples that it finishes."""
        count = len(run.weights)
        self._sum[..., :count] += run.stems()[..., -count:] * run.weights
        self._weight[:count] += run.weights
        out = (self._sum[..., :done] / self._weight[:done]).astype(np.float32)
        for sums in (self._sum, self._weight):
            sums[..., : self._chunk - done] = sums[..., done:]
            sums[..., self._chunk - done :] = 0
        return out

    def _weights(self, last: bool) -> Exact:
        half = self._chunk // 2
        window = self._window.copy()
        if self._start == 0:
            window[:half] = 1
        if last:
            window[half:] = 1
        return window

    def _separate(self, chunk: Audio, at: int) -> Audio:
        """Separates a group of channels; runs the engine at most once."""
        require_not_cancelled(self._cancel)
        if not chunk.any():
            return np.zeros((len(self.manifest.stems), *chunk.shape), np.float32)
        silent = self._one_sided.silent_channel(chunk, at)
        if silent is None:
            return self._run_engine(chunk, at)
        stems = self._run_engine(OneSided.doubled(chunk, silent), at)
        return OneSided.undoubled(stems, silent)

    def _run_engine(self, chunk: Audio, at: int) -> Audio:
        expected = (len(self.manifest.stems), *chunk.shape)
        stems = self._engine.run(chunk)
        if stems.shape != expected:
            raise ModelError(
                f"the engine must return (stems, channels, samples) {expected}; got "
                f"{stems.shape}: export the model again"
            )
        return stems if np.isfinite(stems).all() else self._in_float32(chunk, at)

    def _in_float32(self, chunk: Audio, at: int) -> Audio:
        """Runs a chunk again in float32, because its output was not finite."""
        engine, seconds = self._engine, at / self.manifest.sample_rate
        stems = (
            engine.in_float32().run(chunk) if isinstance(engine, ReducedPrecisionEngine) else None
        )
        if stems is None or not np.isfinite(stems).all():
            raise ModelError(
                f"the model's output is not finite near {seconds:.1f} s: use a model with "
                "precision fp32"
            )
        self.float32_chunks += 1
        log.warning(
            "the output of the chunk at %.1f s was not finite in %s, so it ran again in float32 "
            "(%d so far)",
            seconds,
            self.manifest.precision,
            self.float32_chunks,
        )
        return stems
