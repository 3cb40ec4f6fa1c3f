"""Separation while the audio comes: push what there is, take what is certain."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import numpy as np

from bsmamba2.audio.array import Layout, require_floats, to_float32
from bsmamba2.errors import AudioError
from bsmamba2.stems import Stems

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from bsmamba2.audio.array import Audio, Exact
    from bsmamba2.formats.manifest import Manifest
    from bsmamba2.pipeline.song_pipeline import SongPipeline

log = logging.getLogger("bsmamba2")

SETTLED_SECONDS = 1.0
"""Of computing, before a stream is called too slow: the first runs allocate."""


class Stream:
    """A stream of audio into streams of stems; :meth:`bsmamba2.Separator.stream` makes one.

        stream = separator.stream(48000, lookahead_ms=500)
        for block in microphone:
            play(stream.push(block)["vocals"])
        play(stream.flush()["vocals"])

    As many samples come out as went in, the first for the first: there is no silence in front, but
    a push may return fewer samples than it takes, or none, or more. All that is out, put together,
    does not depend on how the input is cut into pushes, those of 0 and 1 sample included, and nor
    does how much is out once n samples have come: never less than n − :attr:`latency_samples`.

    A stream belongs to one thread at a time. Streams of one Separator are independent and may run
    in threads of their own.

    Args:
        start: makes the separation that the stream begins with, at first and after a reset.
        manifest: of the model.
        sample_rate: Hz.
        channels: of every push.
    """

    def __init__(
        self,
        start: Callable[[], SongPipeline],
        manifest: Manifest,
        sample_rate: float,
        channels: int,
    ) -> None:
        self._start = start
        self._manifest = manifest
        self.sample_rate = sample_rate
        self.channels = channels
        self._layout = Layout.CHANNELS_FIRST
        self._separation: SongPipeline
        self.reset()
        self.latency_samples = self._separation.latency_samples
        """The most samples that can have come and not gone out: the smallest such number."""

    def push(self, samples: npt.ArrayLike) -> Stems:
        """Takes the next samples, returns what is certain by now.

        Args:
            samples: (channels, n), or (n,) where the stream is mono; float32 or float64, any n.

        Returns:
            The stems, each (channels, m) or (m,) as it was pushed.

        Raises:
            AudioError: another shape or type, or a sample that is not finite. The stream is as it
                was.
            ModelError: the model failed. Reset before the next push.
            Cancelled: the caller asked to stop. Clear the event and reset before the next push.
        """
        audio = self._arranged(np.asarray(samples))
        seconds = audio.shape[-1] / self.sample_rate
        return self._out(lambda: self._separation.push(audio), seconds)

    def flush(self) -> Stems:
        """Ends the stream: returns all samples that are left. The next push begins another.

        Raises:
            ModelError: the model failed.
            Cancelled: the caller asked to stop; what was left is forgotten.
        """
        try:
            return self._out(self._separation.flush, 0.0)
        finally:
            self._separation = self._start()

    def reset(self) -> None:
        """Forgets all that came: the next push begins another stream, measured anew."""
        self._separation = self._start()
        self._busy_seconds = self._went_seconds = 0.0
        self._backlog_seconds = self._late_seconds = 0.0
        self._told = False

    @property
    def load(self) -> float:
        """Seconds of computing for a second of output, since the last reset; 0 before any output.

        Above 1 the stream is slower than real time, whatever is done about latency. It is said once
        in the log.
        """
        return self._busy_seconds / self._went_seconds if self._went_seconds else 0.0

    @property
    def late_seconds(self) -> float:
        """How late the latest output since the last reset was, had the input come in real time.

        A push that runs the model returns later than it was called, and those after it wait. A live
        consumer keeps as much output in store, beside :attr:`latency_samples`.
        """
        return self._late_seconds

    def _out(self, work: Callable[[], Exact], seconds: float) -> Stems:
        started = time.perf_counter()
        outputs = work()
        self._measure(time.perf_counter() - started, seconds, outputs.shape[-1] / self.sample_rate)
        return Stems(
            to_float32(outputs),
            self._manifest.outputs,
            self.sample_rate,
            layout=self._layout,
            residual=self._manifest.residual,
        )

    def _measure(self, busy: float, came: float, went: float) -> None:
        self._busy_seconds += busy
        self._went_seconds += went
        # Work that was still to be done when these samples came, and the work that they made.
        self._backlog_seconds = max(0.0, self._backlog_seconds - came) + busy
        self._late_seconds = max(self._late_seconds, self._backlog_seconds)
        if self.load > 1 and self._busy_seconds > SETTLED_SECONDS and not self._told:
            self._told = True
            log.warning(
                "the stream is slower than real time: a second of audio takes %.2f s; use a "
                "smaller model, longer blocks, less lookahead, or a GPU",
                self.load,
            )

    def _arranged(self, array: npt.NDArray[np.generic]) -> Audio:
        require_floats(array.dtype)
        if array.ndim == 1 and self.channels == 1:
            self._layout = Layout.MONO
            return to_float32(array[np.newaxis])
        if array.ndim != 2 or array.shape[0] != self.channels:
            mend = ": give samples.T" if array.shape[1:] == (self.channels,) else ""
            raise AudioError(
                f"samples must be (channels, n) with {self.channels} channels, since a stream "
                f"cannot tell from a few samples which way they lie; {array.shape} came{mend}"
            )
        self._layout = Layout.CHANNELS_FIRST
        return to_float32(array)
