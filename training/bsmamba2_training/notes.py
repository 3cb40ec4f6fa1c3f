"""Music that nobody wrote: random notes of random timbres, as many as are asked for.

A recorded pool has so many instruments; a network that has heard only them takes the next one for
a voice. These have no timbre in common but that of a held, pitched sound that is no voice.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bsmamba2.audio.array import Audio
from bsmamba2_training.voices import SAMPLE_RATE

Array = NDArray[np.float64]
SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 4, 7, 9))
CHORDS = ((0,), (0,), (0, 12), (0, 7), (0, 4, 7), (0, 3, 7))
TABLE = 2048
"""Samples of one period of a timbre."""


def play(rng: np.random.Generator, samples: int) -> Audio:
    """One to three parts in one key and tempo, each panned, (2, samples)."""
    scale = SCALES[rng.integers(len(SCALES))]
    tonic, step_s = int(rng.integers(12)), float(np.exp(rng.uniform(np.log(0.09), np.log(0.7))))
    out = np.zeros((2, samples), np.float32)
    for _ in range(rng.integers(1, 4)):
        octave, chord = int(rng.integers(2, 7)), CHORDS[rng.integers(len(CHORDS))]
        part = _part(rng, samples, step_s * 2.0 ** rng.integers(-1, 2), scale, tonic + 12 * octave)
        side, gain = rng.uniform(0, 1), 10 ** (rng.uniform(-12, 0) / 20)
        sound = np.sum([_sound(rng, *part, interval) for interval in chord], axis=0)
        out += (gain * np.sqrt([[1 - side], [side]]) * sound).astype(np.float32)
    return out


def _part(
    rng: np.random.Generator, samples: int, step_s: float, scale: tuple[int, ...], lowest: int
) -> tuple[Array, Array, Array]:
    """A line of steps: its pitch in semitones and its loudness at each sample, and its timbre.

    The line walks the scale up and down by a few degrees, or repeats a figure of three to eight.
    Each note rises, falls at a rate of its own towards what it holds, and lets go at its end.
    """
    step = max(1, int(step_s * SAMPLE_RATE))
    count = -(-samples // step)
    degrees = np.cumsum(rng.integers(-2, 3, count))
    if rng.random() < 0.5:
        degrees = np.resize(rng.integers(0, 9, rng.integers(3, 9)), count)
    degrees = degrees % (2 * len(scale))
    pitches = lowest + np.take(scale, degrees % len(scale)) + 12 * (degrees // len(scale))
    sounding = rng.random(count) > rng.uniform(0, 0.4)
    at = np.arange(samples)
    number, since = at // step, (at % step) / SAMPLE_RATE
    attack_s, fall_s = rng.uniform(0.002, 0.1), np.exp(rng.uniform(np.log(0.05), np.log(2)))
    held = rng.uniform(0, 1)
    loudness = np.minimum(1, since / attack_s) * (held + (1 - held) * np.exp(-since / fall_s))
    loudness *= np.minimum(1, (step / SAMPLE_RATE - since) / 0.02) * sounding[number]
    harmonics = np.arange(1, 41)
    timbre = harmonics ** -rng.uniform(0.5, 2.5) * rng.uniform(0.2, 1, 40)
    if rng.random() < 0.3:
        timbre[1::2] = 0  # as a square wave's
    return pitches[number].astype(np.float64), loudness, timbre


def _sound(
    rng: np.random.Generator, pitch: Array, loudness: Array, timbre: Array, interval: int
) -> Array:
    """A line as sound, (samples,), so many semitones higher, perhaps with vibrato."""
    hz = 440 * 2 ** ((pitch + interval - 69) / 12)
    if rng.random() < 0.3:
        swing = np.sin(2 * np.pi * rng.uniform(4, 7) * np.arange(len(hz)) / SAMPLE_RATE)
        hz = hz * 2 ** (rng.uniform(5, 40) / 1200 * swing)
    # No harmonic of the highest note above half the sample rate.
    few = timbre * (np.arange(1, 41) * hz.max() < SAMPLE_RATE / 2)
    spectrum = np.zeros(TABLE // 2 + 1, complex)
    spectrum[1:41] = few * np.exp(2j * np.pi * rng.random(40))
    period = np.fft.irfft(spectrum)
    period /= np.abs(period).max() + 1e-12
    phase = np.cumsum(hz) / SAMPLE_RATE % 1
    sound: Array = loudness * period[(phase * TABLE).astype(int) % TABLE]
    return sound
