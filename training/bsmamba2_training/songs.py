"""Fixed songs to be measured on: a voice that comes and goes over music, and silence between.

The voice sounds in passages of 1 to 2, 2 to 4 and 4 to 8 seconds, in turn; between them it is
exactly zero. It sings in the key of the music, −8 to 0 dB from its level, in a room of its own.
Sums are exact: all three files are 16-bit integers, and mixture = vocals + instrumental.
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
from bsmamba2_training.voices import SAMPLE_RATE, gate, read_stereo

SONG_S = 30.0
PASSAGES_S = ((1.0, 2.0), (2.0, 4.0), (4.0, 8.0))
PEAK = 0.89


@dataclass(frozen=True)
class Cast:
    """Who plays in a song."""

    tracks: tuple[Path, ...]
    """Files that are the music together."""
    voice: Callable[[np.random.Generator, float, int], Audio]
    """``voice(rng, seconds, key)``: about so many seconds of a voice, (samples,)."""


def compose(cast: Cast, rng: np.random.Generator) -> tuple[Audio, Audio]:
    """A song of 30 s: vocals and instrumental, each (2, samples)."""
    samples = int(SONG_S * SAMPLE_RATE)
    music = excerpt(cast.tracks, samples, rng)
    line = cast.voice(rng, 1.2 * SONG_S, key_of(music))
    dry = passages(line, samples, rng)
    vocals = room(dry, rng)
    sounding = vocals[:, np.abs(vocals).max(axis=0) > 0]
    level = np.sqrt(np.square(sounding).mean()) if sounding.size else 1.0
    wanted = np.sqrt(np.square(music).mean()) * 10 ** (rng.uniform(-8, 0) / 20)
    vocals = vocals * (wanted / level)
    scale = PEAK / float(np.abs(music + vocals).max())
    return vocals * scale, music * scale


def excerpt(tracks: tuple[Path, ...], samples: int, rng: np.random.Generator) -> Audio:
    """A loud enough stretch of the files' sum, (2, samples); short ones are repeated."""
    parts = [read_stereo(path) for path in tracks]
    length = max(part.shape[1] for part in parts)
    music: Audio = np.sum([np.pad(p, ((0, 0), (0, length - p.shape[1]))) for p in parts], axis=0)
    if length < samples:
        music = np.tile(music, -(-samples // length))
    loud = np.sqrt(np.square(music).mean())
    for _ in range(20):
        start = int(rng.integers(music.shape[1] - samples + 1))
        found = music[:, start : start + samples]
        if np.sqrt(np.square(found).mean()) > 0.5 * loud:
            break
    return found


def key_of(music: Audio) -> int:
    """The tonic of the major scale that holds most of the music's energy, semitones above C."""
    frames = np.lib.stride_tricks.sliding_window_view(music.mean(axis=0), 8192)[::4096]
    power = np.square(np.abs(np.fft.rfft(frames * np.hanning(8192), axis=1))).sum(axis=0)
    hz = np.fft.rfftfreq(8192, 1 / SAMPLE_RATE)
    heard = (hz > 110) & (hz < 2000)
    pitch = np.round(12 * np.log2(hz[heard] / 440) + 69).astype(int) % 12
    chroma = np.bincount(pitch, np.sqrt(power[heard]), minlength=12)
    fits = [sum(chroma[(key + note) % 12] for note in MAJOR) for key in range(12)]
    return int(np.argmax(fits))


def passages(line: Audio, samples: int, rng: np.random.Generator) -> Audio:
    """Cuts the line into passages of the three lengths and lays them out with silence between."""
    out = np.zeros(samples, np.float32)
    at, taken = int(rng.uniform(0.5, 3) * SAMPLE_RATE), 0
    for turn in range(1000):
        shortest, longest = PASSAGES_S[turn % len(PASSAGES_S)]
        length = int(rng.uniform(shortest, longest) * SAMPLE_RATE)
        # From the next sound on, so that a passage begins with voice.
        ahead = np.flatnonzero(line[taken:])
        if not len(ahead) or at + length > samples or taken + ahead[0] + length > len(line):
            break
        taken += int(ahead[0])
        fade = np.minimum(1, np.minimum(np.arange(length), np.arange(length)[::-1]) / 882)
        out[at : at + length] = line[taken : taken + length] * fade
        taken += length
        at += length + int(rng.uniform(1.5, 4) * SAMPLE_RATE)
    return out


def room(dry: Audio, rng: np.random.Generator) -> Audio:
    """A mono voice in a stereo room, (2, samples); exact zeros once its tail is 38 dB down."""
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
    out: Audio = wet * gate(wet.mean(axis=0), float(20 * np.log10(level + 1e-9)))
    return out


def write(stems: tuple[Audio, Audio], folder: Path) -> None:
    """Writes vocals, instrumental and their exact sum; the folder appears only whole."""
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
