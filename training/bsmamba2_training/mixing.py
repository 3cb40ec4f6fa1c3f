"""Training items, mixed on the fly: a random excerpt for each stem, changed and laid over another.

An item is drawn from a generator that is seeded by the run's seed and the item's number alone. So
a run that goes on after a stop sees what it would have seen, however many processes draw.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import soxr
from pedalboard import (
    Chain,
    Compressor,
    HighShelfFilter,
    LowShelfFilter,
    PeakFilter,
    Plugin,
    Reverb,
)
from torch.utils.data import Dataset

from bsmamba2.audio.array import Audio
from bsmamba2_training.layout import Pools, Track
from bsmamba2_training.notes import play
from bsmamba2_training.voices import SAMPLE_RATE, gate

LONGEST_S = 20 * 60.0
"""A longer track is drawn as often as one of this length, so that no speaker drowns the others."""


@dataclass(frozen=True)
class Mixing:
    """What happens to stems; probabilities in [0, 1], gains in dB."""

    silent: float = 0.1
    """That a stem is silent, for each."""
    sparse: float = 0.3
    """That the voice sounds for one to two seconds only."""
    second_voice: float = 0.15
    second_music: float = 0.0
    """That other music lies over the music: another piece, or notes that nobody wrote."""
    equaliser: float = 0.0
    """That a stem is equalised: two shelves and a peak, up to 9 dB each."""
    varispeed: float = 0.5
    """That a stem is played faster or slower, up to three semitones."""
    reverb: float = 0.5
    compressor: float = 0.3
    pan: float = 0.5
    low_pass: float = 0.1
    """That both stems end at one frequency, so that bandwidth does not give a voice away."""
    voice_db: tuple[float, float] | None = (-9.0, 3.0)
    """Level of the voice over the music where it sounds; None leaves stems at their own levels."""
    gain_db: tuple[float, float] = (-6.0, 3.5)
    """Of each stem where it is left at its own level: 0.5 to 1.5."""
    peak_db: tuple[float, float] = (-14.0, 0.0)
    """Peak of the mixture, below full scale."""


class Mixtures(Dataset[tuple[Audio, Audio]]):
    """``mixtures[i]``: item number i as (mixture, vocals), each (2, samples) float32.

    Args:
        pools: the tracks to draw from.
        samples: length of an item.
        seed: of the run.
    """

    def __init__(self, pools: Pools, samples: int, seed: int, mixing: Mixing | None = None) -> None:
        self.pools, self.samples, self.seed = pools, samples, seed
        self.mixing = mixing or Mixing()

    def __getitem__(self, item: int) -> tuple[Audio, Audio]:
        rng = np.random.default_rng((self.seed, item))
        mixing, samples = self.mixing, self.samples
        music = np.zeros((2, samples), np.float32)
        vocals = np.zeros((2, samples), np.float32)
        for pool in self.pools.instruments:
            if rng.random() >= mixing.silent:
                music = music + self._gain(rng) * self._music(pool, rng)
        if rng.random() >= mixing.silent:
            vocals = self._gain(rng) * self._vocals(rng)
        if mixing.voice_db:
            vocals = _at_level(vocals, music, rng.uniform(*mixing.voice_db))
        if rng.random() < mixing.low_pass:
            cutoff_hz = rng.uniform(4000, 14000)
            music, vocals = _low_pass(music, cutoff_hz), _low_pass(vocals, cutoff_hz)
        peak = float(np.abs(music + vocals).max())
        gain = 10 ** (rng.uniform(*mixing.peak_db) / 20) / peak if peak > 0 else 1.0
        vocals = (gain * vocals).astype(np.float32)
        return (gain * music).astype(np.float32) + vocals, vocals

    def _gain(self, rng: np.random.Generator) -> float:
        """Of a stem that is left at its own level; of others 1, since the voice is levelled."""
        mixing = self.mixing
        return 1.0 if mixing.voice_db else float(10 ** (rng.uniform(*mixing.gain_db) / 20))

    def _music(self, pool: tuple[Track, ...], rng: np.random.Generator) -> Audio:
        music = self._piece(pool, rng)
        # A plan without it draws nothing here: it keeps its items.
        if self.mixing.second_music and rng.random() < self.mixing.second_music:
            other = (
                self._piece(pool, rng)
                if rng.random() < 0.5
                else self._equalised(play(rng, self.samples), rng)
            )
            music = music + _at_level(other, music, rng.uniform(-12, 6))
        if rng.random() < 0.5:
            music = music[::-1]
        return music if rng.random() < 0.5 else -music

    def _piece(self, pool: tuple[Track, ...], rng: np.random.Generator) -> Audio:
        return self._equalised(self._excerpt(pool, rng, self.samples), rng)

    def _equalised(self, audio: Audio, rng: np.random.Generator) -> Audio:
        equaliser = self._equaliser(rng)
        return Chain(equaliser)(audio, SAMPLE_RATE) if equaliser else audio

    def _equaliser(self, rng: np.random.Generator) -> list[Plugin]:
        if not self.mixing.equaliser or rng.random() >= self.mixing.equaliser:
            return []
        peak_hz = float(np.exp(rng.uniform(np.log(300), np.log(6000))))
        low_db, peak_db, high_db = rng.uniform(-9, 9, 3)
        return [
            LowShelfFilter(250, low_db),
            PeakFilter(peak_hz, peak_db, q=1.0),
            HighShelfFilter(4000, high_db),
        ]

    def _vocals(self, rng: np.random.Generator) -> Audio:
        vocals = self._voice(rng)
        if rng.random() < self.mixing.second_voice:
            vocals = vocals + self._voice(rng) * 10 ** (rng.uniform(-12, 0) / 20)
        if rng.random() < self.mixing.sparse:
            vocals = _only_a_passage(vocals, rng)
        return vocals

    def _voice(self, rng: np.random.Generator) -> Audio:
        """One voice in its place: levelled, panned, in a room, and silent where it is not heard."""
        mixing = self.mixing
        voice = self._excerpt(self.pools.vocals, rng, self.samples)
        if rng.random() < mixing.pan:
            side = rng.uniform(-0.5, 0.5)
            voice = voice * np.array([[1 - max(0.0, side)], [1 + min(0.0, side)]], np.float32)
        effects = self._equaliser(rng)
        if rng.random() < mixing.compressor:
            threshold, ratio = rng.uniform(-30, -15), rng.uniform(2, 6)
            effects.append(Compressor(threshold, ratio, attack_ms=5, release_ms=100))
        if rng.random() < mixing.reverb:
            wet, size = rng.uniform(0.02, 0.25), rng.uniform(0.1, 0.8)
            effects.append(Reverb(size, rng.uniform(0.2, 0.8), wet, dry_level=0.8))
        if effects and voice.any():
            level_db = _level_db(voice)
            voice = Chain(effects)(voice, SAMPLE_RATE)
            voice = voice * gate(voice.mean(axis=0), level_db)
        return voice

    def _excerpt(self, tracks: tuple[Track, ...], rng: np.random.Generator, samples: int) -> Audio:
        """A stretch of a random track, (2, samples), perhaps played faster or slower."""
        track = draw(tracks, rng)
        speed = 1.0
        if rng.random() < self.mixing.varispeed:
            speed = float(2 ** (rng.uniform(-3, 3) / 12))
        needed = int(np.ceil(samples * speed)) + 1
        longest = int(track.seconds * SAMPLE_RATE)
        start = int(rng.integers(max(1, longest - needed)))
        audio = track.read(start, needed)
        if speed != 1.0:
            audio = soxr.resample(audio.T, speed, 1.0, quality="LQ").T
        audio = audio[:, :samples]
        return np.pad(audio, ((0, 0), (0, samples - audio.shape[1]))).astype(np.float32)


def draw(tracks: tuple[Track, ...], rng: np.random.Generator) -> Track:
    """A track, by its length."""
    weights = np.array([min(track.seconds, LONGEST_S) for track in tracks])
    return tracks[int(rng.choice(len(tracks), p=weights / weights.sum()))]


def _only_a_passage(vocals: Audio, rng: np.random.Generator) -> Audio:
    """Silence but for one to two seconds, faded at its ends over 20 ms, anywhere."""
    samples = vocals.shape[1]
    length = min(samples, int(rng.uniform(1, 2) * SAMPLE_RATE))
    start = int(rng.integers(samples - length + 1))
    at = np.arange(samples) - start
    fade = np.clip(np.minimum(at, length - 1 - at) / 882, 0, 1)
    out: Audio = vocals * fade.astype(np.float32)
    return out


def _at_level(vocals: Audio, music: Audio, over_db: float) -> Audio:
    """The voice so many dB over the music, both where they sound; without music, as it is."""
    if not vocals.any() or not music.any():
        return vocals
    return vocals * 10 ** ((_level_db(music) + over_db - _level_db(vocals)) / 20)


def _level_db(audio: Audio) -> float:
    """RMS over the samples that are not exactly silent, dB."""
    power = np.square(audio).mean(axis=0)
    return float(10 * np.log10(power[power > 0].mean() + 1e-12))


def _low_pass(audio: Audio, cutoff_hz: float) -> Audio:
    """Nothing above the cutoff, no delay."""
    spectrum = np.fft.rfft(audio)
    hz = np.fft.rfftfreq(audio.shape[1], 1 / SAMPLE_RATE)
    spectrum *= np.clip((cutoff_hz * 1.05 - hz) / (cutoff_hz * 0.05), 0, 1)
    silent = ~audio.any(axis=0)
    return np.where(silent, 0, np.fft.irfft(spectrum, audio.shape[1])).astype(np.float32)
