"""Synthesises random notes with random timbres, as additional music for training.

Recorded music has a limited number of instruments, and a network trained only on those mistakes an
unknown instrument for a voice. Random timbres have only one thing in common: they are held, pitched
sounds that are not voices.
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
"""Samples in the wavetable of one period."""


def play(rng: np.random.Generator, samples: int) -> Audio:
    """Synthesises one to three parts in the same key and tempo, each panned, (2, samples)."""
    scale = SCALES[rng.integers(len(SCALES))]
    tonic, step_s = int(rng.integers(12)), float(np.exp(rng.uniform(np.log(0.09), np.log(0.7))))
    out = np.zeros((2, samples), np.float32)
    for _ in range(rng.integers(1, 4)):
        octave, chord = int(rng.integers(2, 7)), CHORDS[rng.integers(len(CHORDS))]
        part_step_s = step_s * 2.0 ** rng.integers(-1, 2)
        part = _draw_part(rng, samples, part_step_s, scale, tonic + 12 * octave)
        side, gain = rng.uniform(0, 1), 10 ** (rng.uniform(-12, 0) / 20)
        sound = np.sum([_synthesise(rng, *part, interval) for interval in chord], axis=0)
        out += (gain * np.sqrt([[1 - side], [side]]) * sound).astype(np.float32)
    return out


def _draw_part(
    rng: np.random.Generator, samples: int, step_s: float, scale: tuple[int, ...], lowest: int
) -> tuple[Array, Array, Array]:
    """Draws a melody of equal steps and a timbre.

    The melody walks up and down the scale, or repeats a figure of three to eight notes. All notes
    of a part have the same envelope: attack, decay to a sustain level, and release. Some are rests.

    Returns:
        Pitch in semitones (MIDI) and loudness, each (samples,), and the amplitudes of 40 harmonics.
    """
    step = max(1, int(step_s * SAMPLE_RATE))
    count = -(-samples // step)
    degrees = np.cumsum(rng.integers(-2, 3, count))
    if rng.random() < 0.5:
        degrees = np.resize(rng.integers(0, 9, rng.integers(3, 9)), count)
    degrees = degrees % (2 * len(scale))
    pitches = lowest + np.take(scale, degrees % len(scale)) + 12 * (degrees // len(scale))
    is_sounding = rng.random(count) > rng.uniform(0, 0.4)
    at = np.arange(samples)
    note, age_s = at // step, (at % step) / SAMPLE_RATE
    attack_s, decay_s = rng.uniform(0.002, 0.1), np.exp(rng.uniform(np.log(0.05), np.log(2)))
    sustain = rng.uniform(0, 1)
    decay = sustain + (1 - sustain) * np.exp(-age_s / decay_s)
    loudness = np.minimum(1, age_s / attack_s) * decay
    loudness *= np.minimum(1, (step / SAMPLE_RATE - age_s) / 0.02) * is_sounding[note]
    harmonics = np.arange(1, 41)
    timbre = harmonics ** -rng.uniform(0.5, 2.5) * rng.uniform(0.2, 1, 40)
    if rng.random() < 0.3:
        timbre[1::2] = 0  # odd harmonics only, like a square wave
    return pitches[note].astype(np.float64), loudness, timbre


def _synthesise(
    rng: np.random.Generator, pitch: Array, loudness: Array, timbre: Array, interval: int
) -> Array:
    """Synthesises a part ``interval`` semitones higher, (samples,), perhaps with vibrato."""
    hz = 440 * 2 ** ((pitch + interval - 69) / 12)
    if rng.random() < 0.3:
        vibrato = np.sin(2 * np.pi * rng.uniform(4, 7) * np.arange(len(hz)) / SAMPLE_RATE)
        hz = hz * 2 ** (rng.uniform(5, 40) / 1200 * vibrato)
    # Prevents aliasing: drops harmonics of the highest note above half the sample rate.
    amplitudes = timbre * (np.arange(1, 41) * hz.max() < SAMPLE_RATE / 2)
    spectrum = np.zeros(TABLE // 2 + 1, complex)
    spectrum[1:41] = amplitudes * np.exp(2j * np.pi * rng.random(40))
    period = np.fft.irfft(spectrum)
    period /= np.abs(period).max() + 1e-12
    phase = np.cumsum(hz) / SAMPLE_RATE % 1
    out: Array = loudness * period[(phase * TABLE).astype(int) % TABLE]
    return out
