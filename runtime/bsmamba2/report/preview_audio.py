"""The stems as FLAC files that fit a number of bytes together, in every browser.

FLAC is what all browsers play and what takes least time to encode. It is lossless, so the samples
are made coarser first: a lower rate, one channel, and steps that are a fraction of the level of
each stem. All stems get the same signal-to-noise ratio, the best for which the next block is
expected to fit. What one block does not use, the following ones may.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import soundfile

from bsmamba2.audio.array import Audio, to_float32
from bsmamba2.audio.fifo import Fifo
from bsmamba2.audio.resample import Resampler

BITS = 16
_MOST_HZ = 48000
_FULL_BITS, _LOW_BITS, _MONO_BITS = 4.0, 3.5, 2.5
"""Bits per sample below which a lower rate, one channel, or an excerpt sounds better."""
_RATIOS = 2.0 ** np.arange(-15, 0, 0.5)
"""Steps to try, as fractions of a stem's level."""
_SPARE = 0.03
"""The fraction of the space that is kept free for blocks that take more than expected."""
_FRAME = 4608
"""The most samples that libFLAC holds before it writes them."""


@dataclass(frozen=True)
class Form:
    """The rate and the channels of the audio."""

    sample_rate: int
    """Hz."""
    channels: int
    """1 or 2."""
    seconds: float
    """What fits for certain, if the song is that long."""


def choose_form(
    tracks: int, sample_rate: float, channels: int, seconds: float, max_bytes: int
) -> Form:
    """Returns the best form in which the whole song fits, or the smallest.

    Args:
        tracks: number of stems.
        sample_rate, channels: those of the song.
        seconds: length of the song; 0 if it is unknown.
        max_bytes: of all stems together.
    """
    best_hz = int(sample_rate) >> max(0, int(np.ceil(np.log2(sample_rate / _MOST_HZ))))
    low_hz = best_hz // 2 if best_hz >= 32000 else best_hz
    most = min(channels, 2)
    choices = ((best_hz, most, _FULL_BITS), (low_hz, most, _LOW_BITS), (low_hz, 1, _MONO_BITS))
    forms = [
        Form(hz, count, 8 * max_bytes / (bits * tracks * hz * count)) for hz, count, bits in choices
    ]
    return next((form for form in forms if 0 < seconds <= form.seconds), forms[-1])


class PreviewAudio:
    """Encodes the stems as they arrive, until the song or the space ends.

    Args:
        tracks: number of stems.
        sample_rate: of the song, Hz.
        channels: of the song. The first two are taken.
        samples: length of the song; 0 if it is unknown.
        max_bytes: of all files together.
    """

    def __init__(
        self, tracks: int, sample_rate: float, channels: int, samples: int, max_bytes: int
    ) -> None:
        seconds = samples / sample_rate
        self.form = form = choose_form(tracks, sample_rate, channels, seconds, max_bytes)
        self._tracks = tracks
        self._rows = tracks * form.channels
        self._resampler = Resampler(sample_rate, form.sample_rate, self._rows)
        self._resampled: Fifo[np.float32] = Fifo(self._rows, np.float32)
        self._max_bytes = max_bytes
        self._wanted = int((min(seconds, form.seconds) or form.seconds) * form.sample_rate)
        self._written = 0
        self._is_full = False
        self.coarsest_bits = BITS
        """The fewest bits of a sample that were kept."""
        self._files = [io.BytesIO() for _ in range(tracks)]
        self._writers = [
            soundfile.SoundFile(
                file, "w", form.sample_rate, form.channels, f"PCM_{BITS}", format="FLAC"
            )
            for file in self._files
        ]

    @property
    def seconds(self) -> float:
        """What was encoded so far."""
        return self._written / self.form.sample_rate

    def push(self, stems: Audio) -> None:
        """Takes (tracks, channels, n)."""
        kept = to_float32(stems[:, :2])
        if self.form.channels < kept.shape[1]:
            kept = kept.mean(axis=1)
        self._resampled.append(self._resampler.push(kept.reshape(self._rows, -1)))
        while len(self._resampled) >= self.form.sample_rate:
            self._encode(self.form.sample_rate)

    def finish(self) -> list[bytes]:
        """Ends the song; returns the file of each stem."""
        self._resampled.append(self._resampler.flush())
        while rest := len(self._resampled):
            self._encode(min(rest, self.form.sample_rate))
        for writer in self._writers:
            writer.close()
        return [file.getvalue() for file in self._files]

    def _encode(self, count: int) -> None:
        """Encodes the next samples, up to a second."""
        stems = self._resampled.take(count).reshape(self._tracks, -1, count)
        left_bytes = self._max_bytes - sum(file.tell() for file in self._files)
        left_bytes -= _FRAME * stems.shape[0] * stems.shape[1]  # what the encoders still hold
        left_samples = max(self._wanted - self._written, count)
        share_bytes = (left_bytes - _SPARE * self._max_bytes) * count / left_samples
        drops, expected_bytes = _fit(stems, share_bytes)
        if self._is_full or expected_bytes > left_bytes:
            self._is_full = True
            return
        self.coarsest_bits = min(self.coarsest_bits, BITS - max(drops))
        for stem, drop, writer in zip(stems, drops, self._writers, strict=True):
            most = 2 ** (BITS - 1 - drop)
            steps = np.round(stem.T * most).clip(-most, most - 1)
            writer.write(steps.astype(np.int16) << drop)
        self._written += count


def _fit(stems: Audio, max_bytes: float) -> tuple[list[int], float]:
    """Returns how many low bits of each stem to drop for a block to fit, and its expected bytes.

    If nothing fits, the most bits are dropped.
    """
    scaled = stems * 2.0 ** (BITS - 1)
    level = np.sqrt(np.square(scaled).mean(axis=(1, 2)))
    level = np.sqrt(level * level.max())
    # FLAC predicts each sample from none, one or two before it, and stores the difference.
    orders = (np.abs(np.diff(scaled, order, axis=-1)) for order in range(min(3, stems.shape[-1])))
    error = np.min([each.mean(axis=-1) for each in orders], axis=0)
    with np.errstate(divide="ignore"):  # of silence
        drops = np.floor(np.log2(_RATIOS[:, np.newaxis] * level)).clip(0, BITS - 4)
    bits = np.log2(1 + 3 * error / 2.0 ** drops[..., np.newaxis]).sum(axis=(1, 2))
    expected_bytes = bits * stems.shape[-1] / 8
    row = min(int((expected_bytes > max_bytes).sum()), len(_RATIOS) - 1)
    return drops[row].astype(int).tolist(), float(expected_bytes[row])
