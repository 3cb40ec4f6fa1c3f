"""Separation of audio as it arrives: push samples, receive the stems that are finished."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import numpy as np

from bsmamba2.audio.array import Layout, require_floats, to_float32
from bsmamba2.errors import AudioError, ModelError
from bsmamba2.stems import Stems

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from bsmamba2.audio.array import Audio, Exact
    from bsmamba2.formats.manifest import Manifest
    from bsmamba2.pipeline.song_pipeline import SongPipeline

log = logging.getLogger("bsmamba2")

SETTLED_SECONDS = 1.0
"""Computing time before a stream may be reported as too slow: the first runs allocate."""


class Stream:
    """A stream of audio, separated as it arrives; :meth:`bsmamba2.Separator.stream` opens one.

        stream = separator.stream(48000, lookahead_ms=500)
        for block in microphone:
            play(stream.push(block)["vocals"])
        play(stream.flush()["vocals"])

    The output has as many samples as the input, and sample k of the output belongs to sample k of
    the input: no silence is added in front. A push may return fewer samples than it receives, none,
    or more. The concatenated output does not depend on how the input is split into pushes.
    After n samples of input, at least n − :attr:`latency_samples` samples have been returned; the
    exact number depends only on n.

    Use a stream from one thread at a time. Streams of one Separator are independent and may run in
    different threads.

    Args:
        start: creates a new pipeline, at the start and after every reset and flush.
        manifest: the model's manifest.
        sample_rate: Hz.
        channels: channels of every push.
        channels_first: whether pushes are (channels, n), not (n, channels). None: as the first push
            that can be only one of them.
    """

    def __init__(
        self,
        start: Callable[[], SongPipeline],
        manifest: Manifest,
        sample_rate: float,
        channels: int,
        channels_first: bool | None = None,
    ) -> None:
        self._start = start
        self._manifest = manifest
        self.sample_rate = sample_rate
        self.channels = channels
        self._given_layout: Layout | None = None
        if channels_first is not None:
            self._given_layout = Layout.CHANNELS_FIRST if channels_first else Layout.CHANNELS_LAST
        self._layout: Layout | None
        self._guessed = False
        self._pipeline: SongPipeline
        self.reset()
        self.latency_samples: int = self._pipeline.latency_samples
        """The most samples that can be in the stream: pushed and not yet returned."""

    def push(self, samples: npt.ArrayLike) -> Stems:
        """Takes the next samples and returns the part of the stems that is finished.

        Args:
            samples: (channels, n) or (n, channels), or (n,) for a mono stream; float32 or float64,
                any n. A square array has the layout of earlier pushes.

        Returns:
            The stems, each (channels, m), (m, channels) or (m,), like the input.

        Raises:
            AudioError: the shape or type is wrong, or a sample is not finite. The stream is
                unchanged.
            ModelError: the model failed. Call :meth:`reset` before the next push.
            Cancelled: the caller stopped it. Clear the event and call :meth:`reset` before the
                next push.
        """
        audio = self._arrange(np.asarray(samples))
        seconds = audio.shape[-1] / self.sample_rate
        return self._run(lambda: self._pipeline.push(audio), seconds)

    def flush(self) -> Stems:
        """Ends the stream and returns all remaining samples. The next push starts a new stream.

        Raises:
            ModelError: the model failed.
            Cancelled: the caller stopped it; the remaining samples are lost.
        """
        try:
            return self._run(self._pipeline.flush, 0.0)
        finally:
            self._restart()

    def reset(self) -> None:
        """Discards the stream and its measurements: the next push starts a new one."""
        self._restart()
        self._busy_seconds = self._output_seconds = 0.0
        self._backlog_seconds = self._late_seconds = 0.0
        self._warned = False

    def __repr__(self) -> str:
        return (
            f"Stream({self._manifest.name}: {', '.join(self._manifest.outputs)}; "
            f"{self.channels} channel{'s' * (self.channels > 1)}, {self.sample_rate:g} Hz)"
        )

    def __reduce__(self) -> str:
        raise ModelError(
            "a Stream cannot be copied or pickled, because its state is in the model: open another "
            "with Separator.stream"
        )

    @property
    def load(self) -> float:
        """Computing time per second of output since the last reset; 0 before any output.

        Above 1 the stream is slower than real time, whatever its latency; a warning is logged once.
        """
        return self._busy_seconds / self._output_seconds if self._output_seconds else 0.0

    @property
    def late_seconds(self) -> float:
        """The longest delay of any output since the last reset, as if input arrived in real time.

        A push that runs the model takes time, and later pushes wait for it. A live consumer needs a
        buffer of this length in addition to :attr:`latency_samples`.
        """
        return self._late_seconds

    def _restart(self) -> None:
        self._pipeline = self._start()
        self._layout = self._given_layout
        self._guessed = False

    def _run(self, work: Callable[[], Exact], seconds: float) -> Stems:
        started = time.perf_counter()
        outputs = work()
        self._measure(time.perf_counter() - started, seconds, outputs.shape[-1] / self.sample_rate)
        names = self._manifest.outputs
        return Stems(
            to_float32(outputs[: len(names)]),
            names,
            self.sample_rate,
            layout=self._layout or Layout.CHANNELS_FIRST,
            residual=self._manifest.residual,
        )

    def _measure(self, busy: float, received: float, emitted: float) -> None:
        """Adds one push; all arguments in seconds."""
        self._busy_seconds += busy
        self._output_seconds += emitted
        # The work left when these samples arrived, plus the work they caused.
        self._backlog_seconds = max(0.0, self._backlog_seconds - received) + busy
        self._late_seconds = max(self._late_seconds, self._backlog_seconds)
        if self.load > 1 and self._busy_seconds > SETTLED_SECONDS and not self._warned:
            self._warned = True
            log.warning(
                "the stream is slower than real time: one second of audio takes %.2f s; use a "
                "smaller model, longer blocks, less lookahead, or a GPU",
                self.load,
            )

    def _arrange(self, array: npt.NDArray[np.generic]) -> Audio:
        require_floats(array.dtype)
        self._layout = layout = self._layout_of(array.shape)
        if layout is Layout.MONO:
            return to_float32(array[np.newaxis])
        return to_float32(array.T if layout is Layout.CHANNELS_LAST else array)

    def _layout_of(self, shape: tuple[int, ...]) -> Layout:
        """Returns the layout of a push; as many samples as channels have that of earlier pushes."""
        if len(shape) == 1 and self.channels == 1:
            return Layout.MONO
        axes = enumerate((Layout.CHANNELS_FIRST, Layout.CHANNELS_LAST))
        fitting = [
            found for axis, found in axes if len(shape) == 2 and shape[axis] == self.channels
        ]
        if self._given_layout is not None:
            fitting = [found for found in fitting if found is self._given_layout]
        if not fitting:
            known = self._given_layout
            allowed = known.value if known else "(channels, samples) or (samples, channels)"
            raise AudioError(
                f"samples must be {allowed} with {self.channels} channels; got {shape}"
            )
        if len(fitting) == 2:
            self._guessed = self._guessed or self._layout not in fitting
            return self._layout if self._layout in fitting else Layout.CHANNELS_FIRST
        if self._guessed and fitting[0] is not self._layout and self.channels > 1:
            raise AudioError(
                f"samples must be {Layout.CHANNELS_FIRST.value}, as which the square array before "
                f"them was taken; got {shape}: open the stream with channels_first=False"
            )
        self._guessed = False
        return fitting[0]
