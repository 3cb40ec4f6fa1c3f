"""From short recordings of speech to lines: clean, level, and exactly silent between the words.

A reference that hisses between words teaches a network to let hiss through, and makes every figure
of silence meaningless, so what lies below a voice's own level becomes exact zeros.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from bsmamba2.audio.array import Audio

Array: TypeAlias = npt.NDArray[Any]
"""Of any type: what lies between audio and audio."""

SAMPLE_RATE = 44100
LEVEL_DB = -20.0
"""RMS of a voice where it sounds, dB below full scale."""
_FRAME = 441
_GATE_DB = -38.0
_NOISY_DB = -24.0
_HOLD_FRAMES = 8


def read_mono(path: Path) -> Audio:
    """A recording as one channel at 44.1 kHz, (samples,)."""
    audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
    mono = audio.mean(axis=1)
    out: Audio = mono if rate == SAMPLE_RATE else soxr.resample(mono, rate, SAMPLE_RATE)
    return out.astype(np.float32)


def read_stereo(path: Path) -> Audio:
    """Music as two channels at 44.1 kHz, (2, samples)."""
    audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
    audio = np.repeat(audio, 2, axis=1) if audio.shape[1] == 1 else audio[:, :2]
    out: Audio = audio if rate == SAMPLE_RATE else soxr.resample(audio, rate, SAMPLE_RATE)
    return np.ascontiguousarray(out.T, np.float32)


def frame_levels_db(mono: Audio) -> Audio:
    """Level of each 10 ms frame, dB; a last partial frame counts as one."""
    padded = np.pad(mono, (0, -len(mono) % _FRAME)).reshape(-1, _FRAME)
    out: Audio = 10 * np.log10(np.square(padded).mean(axis=1) + 1e-12)
    return out


def gate(mono: Audio, reference_db: float) -> Audio:
    """The gain, in [0, 1], that zeros what is more than 38 dB below ``reference_db``.

    A sound keeps 80 ms before and after it, so that consonants and tails survive; ramps are 10 ms.
    """
    is_open = frame_levels_db(mono) > reference_db + _GATE_DB
    kernel = np.ones(2 * _HOLD_FRAMES + 1)
    held = np.convolve(is_open, kernel)[_HOLD_FRAMES:][: len(is_open)] > 0
    # Ramps lie inside the held frames: a frame that closes on either side ramps within itself.
    gains = np.repeat(held.astype(np.float32), _FRAME)
    # Divided last: whole numbers add up to the same on every processor.
    inside = np.convolve(gains, np.ones(_FRAME, np.float32), mode="same") / _FRAME
    smooth = np.clip(2 * inside - 1, 0, 1) * gains
    out: Audio = smooth[: len(mono)].astype(np.float32)
    return out


def clean(mono: Audio) -> Audio | None:
    """A recording of a voice, gated, trimmed and levelled; None where it cannot be used.

    Not used: shorter than 0.3 s, clipped in over 0.1% of its samples, or with a noise floor less
    than 24 dB below the voice.
    """
    if len(mono) < 0.3 * SAMPLE_RATE or not np.isfinite(mono).all():
        return None
    peak = np.abs(mono).max()
    if peak < 1e-3 or (np.abs(mono) >= 0.999 * max(peak, 1.0)).mean() > 1e-3:
        return None
    mono = mono - mono.mean()
    levels = frame_levels_db(mono)
    voice_db = float(np.percentile(levels, 95))
    if len(levels) > 60 and np.percentile(levels, 5) - voice_db > _NOISY_DB:
        return None
    mono = mono * gate(mono, voice_db)
    sounding = np.flatnonzero(mono)
    if len(sounding) < 0.25 * SAMPLE_RATE:
        return None
    return levelled(mono[sounding[0] : sounding[-1] + 1])


def levelled(mono: Audio) -> Audio:
    """At −20 dB RMS where it sounds, with peaks held below full scale."""
    levels = frame_levels_db(mono)
    active = levels > np.percentile(levels, 95) - 25
    rms_db = 10 * np.log10((10 ** (levels[active] / 10)).mean())
    gain = 10 ** ((LEVEL_DB - rms_db) / 20)
    peak = float(np.abs(mono).max()) * gain
    out: Audio = (mono * gain * min(1.0, 0.98 / peak)).astype(np.float32)
    return out


def join(utterances: list[Audio], rng: np.random.Generator) -> Audio:
    """Utterances one after the other, with 50 to 350 ms of silence between them."""
    pieces: list[Audio] = []
    for utterance in utterances:
        gap = int(rng.uniform(0.05, 0.35) * SAMPLE_RATE)
        pieces += [utterance, np.zeros(gap, np.float32)]
    return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
