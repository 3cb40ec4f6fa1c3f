"""Takes a song and its stems as they are separated, and keeps what a report shows of them.

    stems ─┬─ frames ─┬─ power in bands ─ timeline ─ picture
           │          └─ level, peak ──── timeline ─ curves
           ├─ samples ── peaks, clipped samples, the largest error of the sum
           └─ samples ── audio

Memory does not grow with the song's length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bsmamba2.audio.array import Audio, Exact, to_float32
from bsmamba2.audio.fifo import Fifo
from bsmamba2.report.preview_audio import Form, PreviewAudio
from bsmamba2.report.spectrogram import ROWS, Bands, decibels
from bsmamba2.report.timeline import CAPACITY, Timeline

FULL_SCALE = 1 - 2.0**-15
"""The largest sample of 16 bits; samples from here on count as clipped."""
ACTIVE_DB = 30.0
"""A stem counts as active where its level is at most so far below the average of the song."""
SILENT_DB = -70.0
"""Full scale is 0; what is below is never active."""

_LEAST_COLUMNS = 64
_COLUMN_BYTES = ROWS + 44
"""The most that a column of a track adds to a page: of the picture, the curves and the strip."""
_PAGE_BYTES = 80_000
"""The most that everything but columns and audio takes, with a margin."""


@dataclass(frozen=True)
class Track:
    """What a report shows of the song or of one stem."""

    name: str
    power: Audio
    """(ROWS, columns), see :class:`~bsmamba2.report.spectrogram.Bands`."""
    level: Audio
    """(columns,), mean square of each column."""
    peak: Audio
    """(columns,), largest magnitude of each column."""
    mean_square: float
    """Of all samples."""
    clipped: int
    """Samples at or beyond full scale."""
    audio: bytes
    """A FLAC file; empty for the song, which is the sum of its stems."""

    def is_active(self, song: float) -> npt.NDArray[np.bool_]:
        """Returns (columns,): where the stem is active in a song of this mean square."""
        return decibels(self.level) > max(float(decibels(song)) - ACTIVE_DB, SILENT_DB)


@dataclass(frozen=True)
class Recording:
    """What a report shows: the song first if it is known, then the stems."""

    tracks: tuple[Track, ...]
    has_song: bool
    """Whether the first track is the song, which the others sum to."""
    seconds: float
    column_seconds: float
    """What one column of a picture or curve stands for."""
    frame_seconds: float
    """What one frame of a spectrogram covers of the distance between frames."""
    hop_seconds: float
    """The distance of the frames."""
    sum_error: float | None
    """The largest difference of the song and the sum of its stems; None if it is unknown."""
    form: Form
    """Of the audio."""
    audio_seconds: float
    audio_bits: int
    """The fewest bits of a sample that were kept in the audio."""
    ticks: list[tuple[float, str]]
    """Frequencies to label, see :meth:`bsmamba2.report.spectrogram.Bands.ticks`."""


class Recorder:
    """Keeps what a report shows.

    Args:
        names: of the stems.
        sample_rate: Hz.
        channels: of the song and of every stem.
        samples: length of the song as its header states it; 0 if it states none.
        max_bytes: what a page may have.
        has_sum: whether the stems sum to the song.
    """

    def __init__(
        self,
        names: Sequence[str],
        sample_rate: float,
        channels: int,
        samples: int,
        max_bytes: int,
        has_sum: bool = True,
    ) -> None:
        self._names = ["mixture", *names] if has_sum else list(names)
        self._rate = sample_rate
        self._channels = channels
        self._has_sum = has_sum
        self._bands = Bands(sample_rate, has_sum)
        frame = self._bands.frame
        self._hop = min(max(samples // CAPACITY, frame // 8), 2 * frame) if samples else 2 * frame
        # A window is in the middle of the samples whose level belongs to it.
        self._lead = max(frame - self._hop, 0) // 2
        self._skip = max(self._hop - frame, 0) // 2
        count = len(self._names)
        capacity, column_bytes = CAPACITY, count * _COLUMN_BYTES
        while capacity * column_bytes > max_bytes / 2 and capacity > _LEAST_COLUMNS:
            capacity //= 2
        self._song: Fifo[np.float64] = Fifo(channels, np.float64)
        self._frames: Fifo[np.float32] = Fifo(count * channels, np.float32)
        self._power, self._level, self._peak = (
            Timeline(np.mean, capacity),
            Timeline(np.mean, capacity),
            Timeline(np.max, capacity),
        )
        self._frames.append(np.zeros((count * channels, self._lead), np.float32))
        self._needed = max(frame, self._hop)
        self._clipped, self._squares = np.zeros(count, int), np.zeros(count)
        self._samples = 0
        self._sum_error: float | None = None
        # Base64 turns three bytes into four.
        left = max_bytes - _PAGE_BYTES - capacity * column_bytes
        audio_bytes = max(left * 3 // 4, 0)
        self._audio = PreviewAudio(len(names), sample_rate, channels, samples, audio_bytes)

    def expect(self, song: npt.NDArray[Any]) -> None:
        """Takes (channels, n) of the song, which the next stems are compared with."""
        self._song.append(song)

    def push(self, stems: Exact) -> None:
        """Takes (stems, channels, n), the next samples of each stem."""
        if (count := stems.shape[-1]) == 0:
            return
        self._samples += count
        tracks = to_float32(stems)
        if self._has_sum:
            total = stems.sum(axis=0)
            tracks = np.concatenate([to_float32(total)[np.newaxis], tracks])
            if len(self._song):
                song = self._song.take(count)
                tracks[0] = to_float32(song)
                error = float(np.abs(song - total).max())
                self._sum_error = max(error, self._sum_error or 0.0)
        self._frames.append(tracks.reshape(-1, count))
        self._measure((len(self._frames) - self._needed) // self._hop + 1)
        self._audio.push(tracks[-len(stems) :])

    def finish(self) -> Recording:
        """Ends the song."""
        rest = -(-(len(self._frames) - self._lead) // self._hop)
        rest = max(rest, 1 if self._power.is_empty else 0)
        silence = max((rest - 1) * self._hop + self._needed - len(self._frames), 0)
        self._frames.append(np.zeros((len(self._names) * self._channels, silence), np.float32))
        self._measure(rest)
        power, level, peak = (t.columns() for t in (self._power, self._level, self._peak))
        files = [b""] * self._has_sum + self._audio.finish()
        means = self._squares / max(self._samples, 1)
        tracks = tuple(
            Track(
                name,
                power[row],
                level[row, 0],
                peak[row, 0],
                float(means[row]),
                int(self._clipped[row]),
                files[row],
            )
            for row, name in enumerate(self._names)
        )
        return Recording(
            tracks,
            self._has_sum,
            self._samples / self._rate,
            self._power.frames_per_column * self._hop / self._rate,
            self._bands.frame / self._rate,
            self._hop / self._rate,
            self._sum_error,
            self._audio.form,
            self._audio.seconds,
            self._audio.coarsest_bits,
            self._bands.ticks(),
        )

    def _measure(self, count: int) -> None:
        """Takes the next frames from the queue."""
        if count <= 0:
            return
        frame, hop = self._bands.frame, self._hop
        held = self._frames.peek(0, len(self._frames))
        windows = np.lib.stride_tricks.sliding_window_view(held, frame, axis=-1)
        windows = windows[:, self._skip :: hop][:, :count]
        power = self._bands.power(windows[self._has_sum * self._channels :], self._channels)
        between = held[:, self._lead : self._lead + count * hop].reshape(
            -1, self._channels, count, hop
        )
        level = np.square(between).mean(axis=(1, 3))
        peak = np.abs(between).max(axis=(1, 3))
        for row in np.flatnonzero(peak.max(axis=1) >= FULL_SCALE):
            self._clipped[row] += (np.abs(between[row]) >= FULL_SCALE).sum()
        self._squares += level.sum(axis=1, dtype=np.float64) * hop
        self._power.append(power)
        self._level.append(level[:, np.newaxis])
        self._peak.append(peak[:, np.newaxis])
        self._frames.drop(count * hop)
