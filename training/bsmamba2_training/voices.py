"""Turns short speech recordings into clean voices: levelled, and exactly silent between words.

Hiss between words in a reference would teach the network to pass hiss, and would make every
measurement of silence meaningless. So everything well below a voice's own level is set to zero.
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
"""An array of any type, for intermediate results."""

SAMPLE_RATE = 44100
LEVEL_DB = -20.0
"""RMS of a voice where it sounds, relative to full scale."""
_FRAME = 441
_GATE_DB = -38.0
_NOISY_DB = -24.0
_HOLD_FRAMES = 8


def read_mono(path: Path) -> Audio:
    """Reads a recording as one channel at 44.1 kHz, (samples,)."""
    audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
    mono = audio.mean(axis=1)
    out: Audio = mono if rate == SAMPLE_RATE else soxr.resample(mono, rate, SAMPLE_RATE)
    return out.astype(np.float32)


def read_stereo(path: Path) -> Audio:
    """Reads music as two channels at 44.1 kHz, (2, samples)."""
    audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
    audio = np.repeat(audio, 2, axis=1) if audio.shape[1] == 1 else audio[:, :2]
    out: Audio = audio if rate == SAMPLE_RATE else soxr.resample(audio, rate, SAMPLE_RATE)
    return np.ascontiguousarray(out.T, np.float32)


def frame_levels_db(mono: Audio) -> Audio:
    """Returns the level of each 10 ms frame, dB; the last frame is padded with zeros."""
    padded = np.pad(mono, (0, -len(mono) % _FRAME)).reshape(-1, _FRAME)
    out: Audio = 10 * np.log10(np.square(padded).mean(axis=1) + 1e-12)
    return out


def gate_gains(mono: Audio, reference_db: float) -> Audio:
    """Returns the gains of a noise gate, in [0, 1], that closes 38 dB below ``reference_db``.

    It stays open for 80 ms before and after each sound, to keep consonants and tails. Ramps are
    10 ms.
    """
    is_open = frame_levels_db(mono) > reference_db + _GATE_DB
    kernel = np.ones(2 * _HOLD_FRAMES + 1)
    held = np.convolve(is_open, kernel)[_HOLD_FRAMES:][: len(is_open)] > 0
    # The ramps lie within the first and the last open frame.
    gains = np.repeat(held.astype(np.float32), _FRAME)
    # Division comes last because sums of integers are exact on every processor.
    inside = np.convolve(gains, np.ones(_FRAME, np.float32), mode="same") / _FRAME
    smooth = np.clip(2 * inside - 1, 0, 1) * gains
    out: Audio = smooth[: len(mono)].astype(np.float32)
    return out


def clean(mono: Audio) -> Audio | None:
    """Gates, trims and levels a recording of a voice; returns None if it is unusable.

    Unusable recordings are shorter than 0.3 s, have more than 0.1% clipped samples, or have a noise
    floor less than 24 dB below the voice.
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
    mono = mono * gate_gains(mono, voice_db)
    sounding = np.flatnonzero(mono)
    if len(sounding) < 0.25 * SAMPLE_RATE:
        return None
    return normalise_level(mono[sounding[0] : sounding[-1] + 1])


def normalise_level(mono: Audio) -> Audio:
    """Scales a voice to −20 dB RMS where it sounds, or less if its peaks would exceed 0.98."""
    levels = frame_levels_db(mono)
    is_active = levels > np.percentile(levels, 95) - 25
    rms_db = 10 * np.log10((10 ** (levels[is_active] / 10)).mean())
    gain = 10 ** ((LEVEL_DB - rms_db) / 20)
    peak = float(np.abs(mono).max()) * gain
    out: Audio = (mono * gain * min(1.0, 0.98 / peak)).astype(np.float32)
    return out


def join(utterances: list[Audio], rng: np.random.Generator) -> Audio:
    """Concatenates utterances, each followed by 50 to 350 ms of silence."""
    pieces: list[Audio] = []
    for utterance in utterances:
        gap = int(rng.uniform(0.05, 0.35) * SAMPLE_RATE)
        pieces += [utterance, np.zeros(gap, np.float32)]
    return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
