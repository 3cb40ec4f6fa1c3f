"""Overlapping chunks, faded into one another: a song through an engine in constant memory.

The grid. Chunk k starts at k · hop, hop = round(chunk · (1 − overlap)); the last is the first one
that reaches the end. Where it would run past the end it is moved back to end there, so that it has
a whole chunk of context, but its output counts from its place on the grid only:

    k = 0   |‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾\\
    k = 1             /‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾\\
    k = 2               .........../‾‾‾‾‾‾‾|     moved back; the dots are context
            0         hop       2·hop      end

The weights. Neighbours share chunk − hop samples. Over the first samples that it shares (at most
half a chunk) a chunk fades in linearly, over the last it fades out; the start of the first and the
end of the last do not fade. The sum of the weighted outputs is divided by the sum of the weights,
so the weights sum to one whatever the overlap, and since no weight is 0 nothing is divided by 0.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from bsmamba2.channels import ChannelGroups
from bsmamba2.errors import AudioError, ModelError
from bsmamba2.fifo import Fifo
from bsmamba2.latency import Jumps

if TYPE_CHECKING:
    from bsmamba2.array import Audio, Exact
    from bsmamba2.engine import Engine


def hop_samples(chunk: int, overlap: float) -> int:
    """From the start of one chunk to the next, in samples.

    Raises:
        AudioError: overlap is no fraction in [0, 1).
    """
    if not 0 <= overlap < 1:
        raise AudioError(
            f"overlap must be a fraction of the chunk in [0, 1); {overlap:g} came: MSST's "
            "num_overlap 2 is 0.5, its 4 is 0.75"
        )
    return max(1, round(chunk * (1 - overlap)))


def linear_window(chunk: int, hop: int) -> Exact:
    """The default weights of a chunk, (chunk,): linear fades of mirrored halves that sum to one."""
    fade = min(chunk - hop, chunk // 2)
    window = np.ones(chunk)
    ramp = (np.arange(fade) + 0.5) / max(fade, 1)
    window[:fade] = ramp
    window[chunk - fade :] = ramp[::-1]
    return window


class OverlapAdd:
    """A stream through an engine, at the engine's rate; its memory is a few chunks, for ever.

    A sample comes out as soon as no later chunk can touch it. A chunk of digital silence is silence
    without asking the engine.

    Args:
        engine: runs the chunks, of ``engine.manifest.chunk`` samples.
        overlap: of neighbouring chunks, a fraction of the chunk in [0, 1).
        window: (chunk,) weights instead of the linear fades, all above 0. Its first half counts as
            1 in the first chunk, its second half in the last.
        channels: of the audio. Default: the engine's; for others see :mod:`bsmamba2.channels`.

    Raises:
        AudioError: overlap, window or channels is out of range.
    """

    def __init__(
        self,
        engine: Engine,
        overlap: float,
        window: Exact | None = None,
        channels: int | None = None,
    ) -> None:
        manifest = engine.manifest
        channels = manifest.channels if channels is None else channels
        self.manifest = manifest
        self._engine = engine
        self._groups = ChannelGroups(channels, manifest.channels)
        self._shape = (len(manifest.stems), channels)
        self._chunk = manifest.chunk
        self._hop = hop_samples(self._chunk, overlap)
        self._window = linear_window(self._chunk, self._hop) if window is None else window
        if self._window.shape != (self._chunk,) or not (self._window > 0).all():
            raise AudioError(
                f"window must be ({self._chunk},) weights above 0; shape {self._window.shape} with "
                f"minimum {np.min(self._window, initial=math.inf):g} came"
            )
        # Held: the input from the previous chunk's start on, since the last chunk may be moved
        # back as far as that. The sums begin at the next chunk's start.
        self._input = Fifo(channels, np.float32)
        self._lead = 0
        self._start = 0
        self._sum = np.zeros((*self._shape, self._chunk))
        self._weight = np.zeros(self._chunk)

    @property
    def jumps(self) -> Jumps:
        """When samples come out: a hop of them, once a chunk and one sample more are there."""
        return Jumps(self._chunk + 1, self._hop, self._hop)

    def push(self, audio: Audio) -> Audio:
        """Takes (channels, n); returns (stems, channels, m), the output that is certain by now.

        Raises:
            ModelError: the engine returned another shape, or samples that are not finite.
        """
        self._input.append(audio)
        parts = [np.zeros((*self._shape, 0), np.float32)]
        # More than a chunk: then the song goes on behind it, and it is not the last.
        while len(self._input) - self._lead > self._chunk:
            parts.append(self._inner_chunk())
        return np.concatenate(parts, axis=-1)

    def flush(self) -> Audio:
        """Ends the stream; returns (stems, channels, m), the rest of the output.

        Raises:
            ModelError: as :meth:`push`.
        """
        held = len(self._input)
        rest = held - self._lead
        if rest == 0:
            return np.zeros((*self._shape, 0), np.float32)
        whole = min(held, self._chunk)
        self._add(held - whole, held, self._weights(last=True)[:rest])
        return self._sums(rest)

    def _inner_chunk(self) -> Audio:
        self._add(self._lead, self._lead + self._chunk, self._weights(last=False))
        done = self._sums(self._hop)
        for sums in (self._sum, self._weight):
            sums[..., : -self._hop] = sums[..., self._hop :]
            sums[..., -self._hop :] = 0
        self._input.drop(self._lead)
        self._lead = self._hop
        self._start += self._hop
        return done

    def _weights(self, last: bool) -> Exact:
        half = self._chunk // 2
        window = self._window.copy()
        if self._start == 0:
            window[:half] = 1
        if last:
            window[half:] = 1
        return window

    def _add(self, start: int, stop: int, weights: Exact) -> None:
        """Runs the input held from start to stop; the last ``len(weights)`` outputs count."""
        count = len(weights)
        stems = self._run(self._input.peek(start, stop))[..., -count:]
        self._sum[..., :count] += stems * weights
        self._weight[:count] += weights

    def _sums(self, count: int) -> Audio:
        return (self._sum[..., :count] / self._weight[:count]).astype(np.float32)

    def _run(self, chunk: Audio) -> Audio:
        return self._groups.join(
            np.stack([self._heard(part) for part in self._groups.split(chunk)])
        )

    def _heard(self, chunk: Audio) -> Audio:
        """One run of the engine."""
        expected = (len(self.manifest.stems), *chunk.shape)
        if not chunk.any():
            return np.zeros(expected, np.float32)
        stems = self._engine.run(chunk)
        if stems.shape != expected:
            raise ModelError(
                f"the engine must return (stems, channels, samples) {expected}; it returned "
                f"{stems.shape}: export the model again"
            )
        if not np.isfinite(stems).all():
            seconds = self._start / self.manifest.sample_rate
            raise ModelError(
                f"the model's output is not finite near {seconds:.1f} s: use a model of float32 "
                "precision"
            )
        return stems
