"""Composes the fixed songs for evaluation: an intermittent voice over music.

The voice sounds in passages of 1 to 2, 2 to 4 and 4 to 8 seconds, in turn; between them it is
exactly zero. It sings in the key of the music, at −8 to 0 dB relative to the music, with its own
reverberation. All three files are 16-bit integers, so mixture = vocals + instrumental is exact.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from pedalboard import Reverb

from bsmamba2.audio.array import Audio
from bsmamba2_training.singing import MAJOR
from bsmamba2_training.voices import SAMPLE_RATE, gate_gains, read_stereo

SONG_S = 30.0
PASSAGES_S = ((1.0, 2.0), (2.0, 4.0), (4.0, 8.0))
PEAK = 0.89


@dataclass(frozen=True)
class Cast:
    """The music and the voice of a song."""

    tracks: tuple[Path, ...]
    """Files whose sum is the music."""
    voice: Callable[[np.random.Generator, float, int], Audio]
    """``voice(rng, seconds, key)`` returns about ``seconds`` of a voice, (samples,)."""


def compose(cast: Cast, rng: np.random.Generator) -> tuple[Audio, Audio]:
    """Composes a song of 30 s: vocals and instrumental, each (2, samples)."""
    samples = int(SONG_S * SAMPLE_RATE)
    music = draw_excerpt(cast.tracks, samples, rng)
    line = cast.voice(rng, 1.2 * SONG_S, estimate_key(music))
    dry = place_passages(line, samples, rng)
    vocals = add_reverb(dry, rng)
    sounding = vocals[:, np.abs(vocals).max(axis=0) > 0]
    level = np.sqrt(np.square(sounding).mean()) if sounding.size else 1.0
    target_level = np.sqrt(np.square(music).mean()) * 10 ** (rng.uniform(-8, 0) / 20)
    vocals = vocals * (target_level / level)
    scale = PEAK / float(np.abs(music + vocals).max())
    return vocals * scale, music * scale


def draw_excerpt(tracks: tuple[Path, ...], samples: int, rng: np.random.Generator) -> Audio:
    """Draws an excerpt of the files' sum that is not too quiet, (2, samples); repeats short files.

    Its level is at least half the level of the whole sum, unless 20 draws find none.
    """
    parts = [read_stereo(path) for path in tracks]
    length = max(part.shape[1] for part in parts)
    music: Audio = np.sum([np.pad(p, ((0, 0), (0, length - p.shape[1]))) for p in parts], axis=0)
    if length < samples:
        music = np.tile(music, -(-samples // length))
    level = np.sqrt(np.square(music).mean())
    for _ in range(20):
        start = int(rng.integers(music.shape[1] - samples + 1))
        excerpt = music[:, start : start + samples]
        if np.sqrt(np.square(excerpt).mean()) > 0.5 * level:
            break
    return excerpt


def estimate_key(music: Audio) -> int:
    """Returns the tonic of the major scale with the most energy, in semitones above C."""
    frames = np.lib.stride_tricks.sliding_window_view(music.mean(axis=0), 8192)[::4096]
    power = np.square(np.abs(np.fft.rfft(frames * np.hanning(8192), axis=1))).sum(axis=0)
    hz = np.fft.rfftfreq(8192, 1 / SAMPLE_RATE)
    in_band = (hz > 110) & (hz < 2000)
    pitch_class = np.round(12 * np.log2(hz[in_band] / 440) + 69).astype(int) % 12
    chroma = np.bincount(pitch_class, np.sqrt(power[in_band]), minlength=12)
    energies = [sum(chroma[(key + note) % 12] for note in MAJOR) for key in range(12)]
    return int(np.argmax(energies))


def place_passages(line: Audio, samples: int, rng: np.random.Generator) -> Audio:
    """Cuts the line into passages of the three lengths and places them with silence between."""
    out = np.zeros(samples, np.float32)
    at, used = int(rng.uniform(0.5, 3) * SAMPLE_RATE), 0
    for turn in range(1000):
        shortest, longest = PASSAGES_S[turn % len(PASSAGES_S)]
        length = int(rng.uniform(shortest, longest) * SAMPLE_RATE)
        # Skips silence, so that a passage starts with voice.
        sounding = np.flatnonzero(line[used:])
        if not len(sounding) or at + length > samples or used + sounding[0] + length > len(line):
            break
        used += int(sounding[0])
        fade = np.minimum(1, np.minimum(np.arange(length), np.arange(length)[::-1]) / 882)
        out[at : at + length] = line[used : used + length] * fade
        used += length
        at += length + int(rng.uniform(1.5, 4) * SAMPLE_RATE)
    return out


def add_reverb(dry: Audio, rng: np.random.Generator) -> Audio:
    """Adds stereo reverberation to a mono voice, (2, samples); gates its tails at −38 dB."""
    reverb = Reverb(
        room_size=float(rng.uniform(0.1, 0.6)),
        damping=float(rng.uniform(0.3, 0.8)),
        wet_level=float(rng.uniform(0.02, 0.2)),
        dry_level=0.8,
        width=1.0,
    )
    wet = reverb(np.repeat(dry[np.newaxis], 2, axis=0), SAMPLE_RATE)
    if not wet.any():
        return np.zeros_like(wet)
    level = np.sqrt(np.square(wet[:, wet[0] != 0]).mean())
    out: Audio = wet * gate_gains(wet.mean(axis=0), float(20 * np.log10(level + 1e-9)))
    return out


def write_song(stems: tuple[Audio, Audio], folder: Path) -> None:
    """Writes vocals, instrumental and their exact sum; the folder appears only when complete."""
    vocals, music = (np.round(stem.T * 32767).astype(np.int16) for stem in stems)
    unfinished = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    for name, audio in (
        ("vocals", vocals),
        ("instrumental", music),
        ("mixture", vocals + music),
    ):
        soundfile.write(unfinished / f"{name}.wav", audio, SAMPLE_RATE, "PCM_16")
    unfinished.rename(folder)
