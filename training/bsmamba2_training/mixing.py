"""Mixes training items on the fly from a random excerpt of each stem, with random augmentation.

The random generator of an item is seeded only by the run's seed and the item's number. A resumed
run therefore sees the same items as one that was never stopped, with any number of processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

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
from bsmamba2_training.layout import LabelledSong, Pools, Track
from bsmamba2_training.notes import play
from bsmamba2_training.stereo import draw_matrix, draw_place, place, transform
from bsmamba2_training.voices import SAMPLE_RATE, gate_gains

SEMITONES = 3.0
"""Largest change of pitch when a stem is played faster or slower."""
LONGEST_S = 20 * 60.0
"""Longer tracks are drawn as often as a track of this length, so that no speaker dominates."""


@dataclass(frozen=True)
class Mixing:
    """Augmentation of the stems: probabilities in [0, 1], ranges of levels in dB."""

    silent: float = 0.1
    """Probability that a stem is silent, drawn for each stem."""
    sparse: float = 0.3
    """Probability that the voice sounds only for one to two seconds."""
    second_voice: float = 0.15
    """Probability that a second voice is added to the voice."""
    second_music: float = 0.0
    """Probability that other music is added to the music: another track, or random notes."""
    equaliser: float = 0.0
    """Probability that a stem is equalised: two shelves and a peak, up to 9 dB each."""
    varispeed: float = 0.5
    """Probability that a stem is played faster or slower."""
    singers_semitones: float = 6.0
    """The largest change of pitch for singers, who are few: it also moves their formants."""
    reverb: float = 0.5
    """Probability of reverberation on a voice."""
    compressor: float = 0.3
    """Probability of dynamic range compression on a voice."""
    pan: float = 0.5
    """Probability that a voice is panned."""
    low_pass: float = 0.1
    """Probability that both stems get the same cutoff, so that voices are not the dull stems."""
    voice_db: tuple[float, float] | None = (-12.0, 3.0)
    """Level of the voice over the music where both sound; None keeps the stems' own levels."""
    gain_db: tuple[float, float] = (-6.0, 3.5)
    """Gain of each stem that keeps its own level: factors of 0.5 to 1.5."""
    peak_db: tuple[float, float] = (-14.0, 0.0)
    """Peak of the mixture, relative to full scale."""
    singers: float = 0.0
    """Share of items with the voice of a singer from a song, over other music."""
    songs: float = 0.0
    """Share of items that are whole songs, with the teacher's vocals."""
    stereo: float = 0.0
    """Probability that a voice or music is placed as in :mod:`stereo`, and the mixture changed."""
    singers_low_pass: float = 0.5
    """Probability of the low pass for singers, of whom the teacher keeps nothing above 11 kHz."""


class Item(NamedTuple):
    """A training item, all float32."""

    mixture: Audio
    """(2, samples)."""
    vocals: Audio
    """(2, samples)."""
    weight: Audio
    """(1, samples), 1 where the vocals are known and 0 where they are not."""


class Mixtures(Dataset[Item]):
    """Items to train on; there are three kinds.

    Voices over music are the most. A share of the items has the voices of singers instead, which a
    teacher separated from songs, and a share are such songs as they are.

    Args:
        pools: the tracks to draw from.
        samples: length of an item.
        seed: seed of the run.
        mixing: the augmentation; None means the defaults.
    """

    def __init__(self, pools: Pools, samples: int, seed: int, mixing: Mixing | None = None) -> None:
        self.pools, self.samples, self.seed = pools, samples, seed
        self.mixing = mixing or Mixing()

    def __getitem__(self, item: int) -> Item:
        rng = np.random.default_rng((self.seed, item))
        mixing, samples = self.mixing, self.samples
        # At 0 no random number is drawn, so the items of older plans do not change.
        kind = rng.random() if mixing.singers or mixing.songs else 1.0
        if kind < mixing.songs:
            return self._draw_song(rng)
        is_singer = kind < mixing.songs + mixing.singers
        voices = self.pools.singers if is_singer else self.pools.vocals
        music = np.zeros((2, samples), np.float32)
        vocals = np.zeros((2, samples), np.float32)
        for pool in self.pools.instruments:
            if rng.random() >= mixing.silent:
                music = music + self._draw_gain(rng) * self._draw_music(pool, rng)
        if rng.random() >= mixing.silent:
            semitones = mixing.singers_semitones if is_singer else SEMITONES
            vocals = self._draw_gain(rng) * self._draw_vocals(voices, semitones, rng)
        if mixing.stereo and rng.random() < mixing.stereo:
            matrix = draw_matrix(rng)
            music, vocals = transform(music, matrix), transform(vocals, matrix)
        if mixing.voice_db:
            vocals = _set_level(vocals, music, rng.uniform(*mixing.voice_db))
        if rng.random() < (mixing.singers_low_pass if is_singer else mixing.low_pass):
            cutoff_hz = rng.uniform(4000, 11000 if is_singer else 14000)
            music, vocals = _cut_above(music, cutoff_hz), _cut_above(vocals, cutoff_hz)
        return self._finish(music, vocals, np.ones((1, samples), np.float32), rng)

    def _draw_song(self, rng: np.random.Generator) -> Item:
        """Draws an excerpt of a labelled song, cut where the teacher's vocals end."""
        song = _draw_labelled_song(self.pools.songs, rng)
        speed = self._draw_speed(rng)
        start, needed = self._draw_start(song.mixture, speed, rng)
        tracks = (song.mixture, song.vocals, song.weight)
        mixture, vocals, weight = (
            self._resample(track.read(start, needed), speed) for track in tracks
        )
        if self.mixing.stereo and rng.random() < self.mixing.stereo:
            matrix = draw_matrix(rng)
            mixture, vocals = transform(mixture, matrix), transform(vocals, matrix)
        cutoff_hz = rng.uniform(6000, 10500)
        mixture, vocals = _cut_above(mixture, cutoff_hz), _cut_above(vocals, cutoff_hz)
        is_known = (weight[:1] > 0.99).astype(np.float32)
        return self._finish(mixture - vocals, vocals, is_known, rng)

    def _finish(self, music: Audio, vocals: Audio, weight: Audio, rng: np.random.Generator) -> Item:
        """Adds the stems and sets the peak of the mixture."""
        peak = float(np.abs(music + vocals).max())
        gain = 10 ** (rng.uniform(*self.mixing.peak_db) / 20) / peak if peak > 0 else 1.0
        vocals = (gain * vocals).astype(np.float32)
        return Item((gain * music).astype(np.float32) + vocals, vocals, weight)

    def _draw_gain(self, rng: np.random.Generator) -> float:
        """Draws the gain of a stem that keeps its own level; 1 if the voice is set to a level."""
        mixing = self.mixing
        return 1.0 if mixing.voice_db else float(10 ** (rng.uniform(*mixing.gain_db) / 20))

    def _draw_music(self, pool: tuple[Track, ...], rng: np.random.Generator) -> Audio:
        music = self._draw_equalised_excerpt(pool, rng)
        # At 0 no random number is drawn, so the items of older plans do not change.
        if self.mixing.second_music and rng.random() < self.mixing.second_music:
            other = (
                self._draw_equalised_excerpt(pool, rng)
                if rng.random() < 0.5
                else self._equalise(play(rng, self.samples), rng)
            )
            music = music + _set_level(other, music, rng.uniform(-12, 6))
        if rng.random() < 0.5:
            music = music[::-1]
        return music if rng.random() < 0.5 else -music

    def _draw_equalised_excerpt(self, pool: tuple[Track, ...], rng: np.random.Generator) -> Audio:
        music = self._equalise(self._draw_excerpt(pool, rng), rng)
        # Most music is as wide as it was recorded.
        return self._place(music, 0.3 * self.mixing.stereo, rng)

    def _equalise(self, audio: Audio, rng: np.random.Generator) -> Audio:
        equaliser = self._draw_equaliser(rng)
        return Chain(equaliser)(audio, SAMPLE_RATE) if equaliser else audio

    def _draw_equaliser(self, rng: np.random.Generator) -> list[Plugin]:
        if not self.mixing.equaliser or rng.random() >= self.mixing.equaliser:
            return []
        peak_hz = float(np.exp(rng.uniform(np.log(300), np.log(6000))))
        low_db, peak_db, high_db = rng.uniform(-9, 9, 3)
        return [
            LowShelfFilter(250, low_db),
            PeakFilter(peak_hz, peak_db, q=1.0),
            HighShelfFilter(4000, high_db),
        ]

    def _place(self, audio: Audio, probability: float, rng: np.random.Generator) -> Audio:
        if not probability or rng.random() >= probability:
            return audio
        return place(audio, draw_place(rng), rng)

    def _draw_vocals(
        self, voices: tuple[Track, ...], semitones: float, rng: np.random.Generator
    ) -> Audio:
        vocals = self._draw_voice(voices, semitones, rng)
        if rng.random() < self.mixing.second_voice:
            second = self._draw_voice(voices, semitones, rng)
            vocals = vocals + second * 10 ** (rng.uniform(-12, 0) / 20)
        if rng.random() < self.mixing.sparse:
            vocals = _keep_one_passage(vocals, rng)
        return vocals

    def _draw_voice(
        self, voices: tuple[Track, ...], semitones: float, rng: np.random.Generator
    ) -> Audio:
        """Draws one voice with its effects; tails below the gate become exact zeros."""
        mixing = self.mixing
        voice = self._draw_excerpt(voices, rng, semitones)
        # A voice is placed before its room, which then sounds on both sides, or after it.
        is_dry = bool(mixing.stereo) and rng.random() < 0.5
        if is_dry:
            voice = self._place(voice, mixing.stereo, rng)
        elif rng.random() < mixing.pan:
            side = rng.uniform(-0.5, 0.5)
            voice = voice * np.array([[1 - max(0.0, side)], [1 + min(0.0, side)]], np.float32)
        effects = self._draw_equaliser(rng)
        if rng.random() < mixing.compressor:
            threshold, ratio = rng.uniform(-30, -15), rng.uniform(2, 6)
            effects.append(Compressor(threshold, ratio, attack_ms=5, release_ms=100))
        if rng.random() < mixing.reverb:
            wet, size = rng.uniform(0.02, 0.25), rng.uniform(0.1, 0.8)
            effects.append(Reverb(size, rng.uniform(0.2, 0.8), wet, dry_level=0.8))
        if effects and voice.any():
            level_db = _level_db(voice)
            voice = Chain(effects)(voice, SAMPLE_RATE)
            voice = voice * gate_gains(np.sqrt(np.square(voice).mean(axis=0)), level_db)
        return voice if is_dry else self._place(voice, mixing.stereo, rng)

    def _draw_excerpt(
        self, tracks: tuple[Track, ...], rng: np.random.Generator, semitones: float = SEMITONES
    ) -> Audio:
        """Cuts an excerpt from a random track, (2, samples), perhaps played faster or slower."""
        track = draw_track(tracks, rng)
        speed = self._draw_speed(rng, semitones)
        start, needed = self._draw_start(track, speed, rng)
        return self._resample(track.read(start, needed), speed)

    def _draw_speed(self, rng: np.random.Generator, semitones: float = SEMITONES) -> float:
        if rng.random() < self.mixing.varispeed:
            return float(2 ** (rng.uniform(-semitones, semitones) / 12))
        return 1.0

    def _draw_start(self, track: Track, speed: float, rng: np.random.Generator) -> tuple[int, int]:
        """Draws the first sample of an excerpt, and returns how many it needs."""
        needed = int(np.ceil(self.samples * speed)) + 1
        available = int(track.seconds * SAMPLE_RATE)
        return int(rng.integers(max(1, available - needed))), needed

    def _resample(self, audio: Audio, speed: float) -> Audio:
        """Plays audio at a speed, cut or padded to the length of an item."""
        if speed != 1.0:
            audio = soxr.resample(audio.T, speed, 1.0, quality="LQ").T
        audio = audio[:, : self.samples]
        padding = self.samples - audio.shape[1]
        return np.pad(audio, ((0, 0), (0, padding))).astype(np.float32)


def _draw_labelled_song(songs: tuple[LabelledSong, ...], rng: np.random.Generator) -> LabelledSong:
    weights = np.array([song.mixture.seconds for song in songs])
    return songs[int(rng.choice(len(songs), p=weights / weights.sum()))]


def draw_track(tracks: tuple[Track, ...], rng: np.random.Generator) -> Track:
    """Draws a track with a probability proportional to its length, up to :data:`LONGEST_S`."""
    weights = np.array([min(track.seconds, LONGEST_S) for track in tracks])
    return tracks[int(rng.choice(len(tracks), p=weights / weights.sum()))]


def _keep_one_passage(vocals: Audio, rng: np.random.Generator) -> Audio:
    """Silences all but a random passage of one to two seconds, with fades of 20 ms."""
    samples = vocals.shape[1]
    length = min(samples, int(rng.uniform(1, 2) * SAMPLE_RATE))
    start = int(rng.integers(samples - length + 1))
    at = np.arange(samples) - start
    fade = np.clip(np.minimum(at, length - 1 - at) / 882, 0, 1)
    out: Audio = vocals * fade.astype(np.float32)
    return out


def _set_level(audio: Audio, reference: Audio, over_db: float) -> Audio:
    """Scales audio to ``over_db`` above the reference, by their levels where each sounds.

    If either is silent, the audio is returned unchanged.
    """
    if not audio.any() or not reference.any():
        return audio
    return audio * 10 ** ((_level_db(reference) + over_db - _level_db(audio)) / 20)


def _level_db(audio: Audio) -> float:
    """Returns the RMS over the samples that are not exactly silent, dB."""
    power = np.square(audio).mean(axis=0)
    return float(10 * np.log10(power[power > 0].mean() + 1e-12))


def _cut_above(audio: Audio, cutoff_hz: float) -> Audio:
    """Removes everything above the cutoff, without delay; exact zeros stay zero."""
    spectrum = np.fft.rfft(audio)
    hz = np.fft.rfftfreq(audio.shape[1], 1 / SAMPLE_RATE)
    spectrum *= np.clip((cutoff_hz * 1.05 - hz) / (cutoff_hz * 0.05), 0, 1)
    is_silent = ~audio.any(axis=0)
    return np.where(is_silent, 0, np.fft.irfft(spectrum, audio.shape[1])).astype(np.float32)
