"""Turns speech into singing: the WORLD vocoder with a new melody, rhythm and timbre.

1. **Analysis.** Pitch, spectral envelope and aperiodicity every 5 ms (Morise et al. 2016).
2. **Syllables.** Voiced stretches are split where their energy dips.
3. **Notes.** Each syllable gets a note of a random walk on a scale, around the speaker's own pitch.
4. **Time.** Each voiced stretch is lengthened to the next multiple of an eighth note, or held for
   up to eight of them. Consonants keep their length, or are left out as in a vocalise.
5. **Pitch.** Notes are joined by portamento; long notes have vibrato, and all drift a little. Held
   notes can also start from below and drift more. A constant pitch would sound like an organ.
6. **Formants.** The envelope is stretched along frequency, which changes the speaker. The vowels of
   held notes are brighter and have a singer's formant (Sundberg 1974), and the band above 7 kHz,
   which some recordings lack, is filled.
7. **Unison.** Further voices with the same formants can join, each slightly late, out of tune, and
   with its own vibrato.

The same seed gives the same audio.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import numpy as np

from bsmamba2.audio.array import Audio
from bsmamba2_training.voices import (
    LEVEL_DB,
    SAMPLE_RATE,
    Array,
    gate_gains,
    normalise_level,
)

MAJOR = (0, 2, 4, 5, 7, 9, 11)
_FRAME_MS = 5.0
_MIN_F0_HZ, _MAX_F0_HZ = 71.0, 800.0
_HELD_EIGHTHS = (1, 1, 1, 2, 2, 3, 4, 6, 8)
"""Lengths of held notes, in eighths; drawn uniformly from this list."""
_EDGE_FRAMES = 14
"""The first and last 70 ms of a held note are not stretched, because vowels glide there."""
_SINGER_FORMANT_HZ, _SINGER_FORMANT_WIDTH_HZ = 2900.0, 500.0
_KNOWN_BAND_HZ = (4000.0, 7000.0)
"""The highest band that all recordings contain; above it, some are empty."""
_SCOOP_S = 0.07
"""Time in which a scoop decays to 37%."""
_DETUNE_CENTS = 10.0
"""Standard deviation of the detuning of voices in unison."""
_MAX_DELAY_S = 0.03
"""Maximum delay of voices in unison."""


@dataclass(frozen=True)
class Style:
    """The parameters of how a phrase is sung."""

    key: int
    """Tonic of the scale, semitones above C; the scale is major (or its relative minor)."""
    eighth_ms: float
    """Length of an eighth note, the grid on which syllables end."""
    transpose: float
    """Centre of the melody above the speaker's median pitch, semitones."""
    formant_scale: float
    """Factor for the frequencies of all formants."""
    vibrato_cents: float
    vibrato_hz: float
    held: bool = False
    """Whether notes last one to eight eighths; otherwise they are only a little longer than in
    speech. Held notes also have the band above 7 kHz filled."""
    glide_ms: float = 55.0
    """Duration of the portamento between notes."""
    scoop_cents: float = 0.0
    """Maximum distance below its pitch at which a note starts."""
    drift: float = 6.0
    """Random drift of the pitch: five times its standard deviation in cents."""
    vibrato_after_s: float = 0.2
    """Delay of the vibrato after the start of a note."""
    legato: bool = False
    """For held notes: vowels only, with a pause before one note in five."""
    high_formant_scale: float = 1.0
    """Additional factor for formants above 2 kHz, fading to 1 at 800 Hz."""
    singer_formant_db: float = 0.0
    """Gain of the singer's formant, at 2.9 kHz."""
    brightness_db: float = 0.0
    """Gain per octave from 500 Hz to 8 kHz; loud voices are brighter."""
    unison: int = 1
    """Number of voices that sing together."""

    @classmethod
    def draw(cls, rng: np.random.Generator, key: int | None = None) -> Style:
        """Draws a random style, in ``key`` if one is given."""
        return cls(
            key=int(rng.integers(12)) if key is None else key,
            eighth_ms=float(rng.uniform(150, 330)),
            transpose=float(rng.uniform(0, 9)),
            formant_scale=float(rng.uniform(0.88, 1.14)),
            vibrato_cents=float(rng.uniform(10, 60)),
            vibrato_hz=float(rng.uniform(4.8, 6.6)),
        )

    @classmethod
    def draw_held(cls, rng: np.random.Generator) -> Style:
        """Draws a random style with held notes, high or low, plain or in full voice."""
        return cls(
            key=int(rng.integers(12)),
            eighth_ms=float(rng.uniform(150, 330)),
            transpose=float(rng.uniform(-2, 15)),
            formant_scale=float(rng.uniform(0.82, 1.22)),
            vibrato_cents=float(rng.uniform(20, 150)),
            vibrato_hz=float(rng.uniform(4.5, 7.5)),
            held=True,
            glide_ms=float(rng.uniform(55, 350)),
            scoop_cents=float(rng.uniform(0, 400)),
            drift=float(rng.uniform(6, 60)),
            vibrato_after_s=float(rng.uniform(0, 0.4)),
            legato=bool(rng.random() < 0.4),
            high_formant_scale=float(rng.uniform(0.85, 1.18)),
            singer_formant_db=float(rng.uniform(0, 12)),
            brightness_db=float(rng.uniform(-1, 3)),
            unison=int(rng.choice([1, 1, 1, 2, 3])),
        )


def sing(speech: Audio, rng: np.random.Generator, style: Style) -> Audio | None:
    """Turns a spoken phrase into singing.

    Args:
        speech: (samples,) at 44.1 kHz, clean; exact zeros where it is silent.

    Returns:
        (samples',), levelled by :func:`~bsmamba2_training.voices.normalise_level`; None if no
        pitch was found.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pyworld reads its version through a deprecated API
        import pyworld

    x = speech.astype(np.float64)
    f0, times = pyworld.dio(x, SAMPLE_RATE, _MIN_F0_HZ, _MAX_F0_HZ, frame_period=_FRAME_MS)
    f0 = pyworld.stonemask(x, f0, times, SAMPLE_RATE)
    notes = find_syllables(f0, speech)
    if not notes:
        return None
    envelope = pyworld.cheaptrick(x, f0, times, SAMPLE_RATE)
    aperiodicity = pyworld.d4c(x, f0, times, SAMPLE_RATE)

    eighths = rng.choice(_HELD_EIGHTHS, len(notes)) if style.held else None
    keeps_gap = rng.random(len(notes)) < 0.2 if style.legato else np.ones(len(notes), bool)
    source, note_of = _time_map(len(f0), notes, style.eighth_ms / _FRAME_MS, eighths, keeps_gap)
    melody = _draw_melody(len(notes), float(np.median(f0[f0 > 0])), rng, style)
    low = np.floor(source).astype(int)
    high = np.minimum(low + 1, len(f0) - 1)
    fraction = (source - low)[:, np.newaxis]
    envelope = np.exp((1 - fraction) * np.log(envelope[low]) + fraction * np.log(envelope[high]))
    aperiodicity = (1 - fraction) * aperiodicity[low] + fraction * aperiodicity[high]
    is_voiced = (f0[low] > 0) & (note_of >= 0)
    if style.held:
        envelope = _fill_top_band(envelope)
    envelope = _shift_formants(envelope, style)
    envelope[is_voiced] *= _brightness_gains(envelope.shape[1], style)
    aperiodicity = np.ascontiguousarray(aperiodicity)
    total = np.zeros(1)
    for _ in range(style.unison):
        voice_style, voice_melody, delay = style, melody, 0
        if style.unison > 1:
            voice_style = replace(style, vibrato_hz=style.vibrato_hz * rng.uniform(0.9, 1.1))
            voice_melody = melody * 2 ** (_DETUNE_CENTS / 1200 * rng.standard_normal())
            delay = int(rng.uniform(0, _MAX_DELAY_S) * SAMPLE_RATE)
        pitch = np.where(is_voiced, _pitch_curve(voice_melody, note_of, rng, voice_style), 0.0)
        voice = pyworld.synthesize(pitch, envelope, aperiodicity, SAMPLE_RATE, _FRAME_MS)
        total = _add(total, np.pad(voice, (delay, 0)))
    if not np.abs(total).max() > 1e-4:
        return None
    sung = normalise_level(total.astype(np.float32))
    return sung * gate_gains(sung, LEVEL_DB)


def find_syllables(f0: Array, speech: Array) -> list[tuple[int, int]]:
    """Finds voiced stretches, [start, stop) in frames, split at dips of 3 dB, at least 40 ms."""
    hop = int(SAMPLE_RATE * _FRAME_MS / 1000)
    padded = np.pad(speech, (0, max(0, len(f0) * hop - len(speech))))[: len(f0) * hop]
    level = 10 * np.log10(np.square(padded.reshape(-1, hop)).mean(axis=1) + 1e-10)
    level = np.convolve(level, np.hanning(11) / np.hanning(11).sum(), mode="same")
    edges = np.flatnonzero(np.diff(np.pad((f0 > 0).astype(int), 1)))
    stretches: list[tuple[int, int]] = []
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        at = int(start)
        for dip in range(int(start) + 20, int(stop) - 20):
            near = level[dip - 8 : dip + 9]
            louder = min(level[at:dip].max(), level[dip:stop].max())
            if dip - at >= 20 and level[dip] <= near.min() and louder - level[dip] > 3:
                stretches.append((at, dip))
                at = dip
        stretches.append((at, int(stop)))
    return [(start, stop) for start, stop in stretches if stop - start >= 8]


def _time_map(
    frames: int,
    notes: list[tuple[int, int]],
    grid: float,
    eighths: Array | None,
    keeps_gap: Array,
) -> tuple[Array, Array]:
    """Maps the frames of the singing to frames of the speech.

    Args:
        frames: number of frames of the speech.
        notes: syllables of the speech, [start, stop) in frames.
        grid: length of an eighth in frames.
        eighths: length of each note in eighths; None lengthens each note to the next eighth.
        keeps_gap: for each note, whether the consonant or pause before it is kept.

    Returns:
        For each frame of the singing, its (fractional) frame in the speech, and the number of its
        note (−1: none).
    """
    source: list[Array] = []
    note_of: list[Array] = []
    at, length = 0, 0
    for number, (start, stop) in enumerate(notes):
        if start > at and keeps_gap[number]:  # consonants and pauses are not stretched
            source.append(np.arange(at, start, dtype=np.float64))
            note_of.append(np.full(start - at, -1))
            length += start - at
        spoken = stop - start
        if eighths is None:
            end = np.ceil((length + 1.2 * spoken) / grid) * grid
            sung = int(np.clip(end - length, spoken, 5 * spoken))
            source.append(np.linspace(start, stop - 1, sung))
        else:
            # Notes start on whole frames, so a note can start just before its eighth.
            end = (np.floor((length + 1) / grid) + eighths[number]) * grid
            sung, edge = max(round(end - length), spoken), min(_EDGE_FRAMES, spoken // 3)
            sung_points = (0, edge, sung - 1 - edge, sung - 1)
            spoken_points = (start, start + edge, stop - 1 - edge, stop - 1)
            source.append(np.interp(np.arange(sung), sung_points, spoken_points))
        note_of.append(np.full(sung, number))
        at, length = stop, length + sung
    source.append(np.arange(at, frames, dtype=np.float64))
    note_of.append(np.full(max(0, frames - at), -1))
    return np.concatenate(source), np.concatenate(note_of)


def _draw_melody(count: int, speaker_hz: float, rng: np.random.Generator, style: Style) -> Array:
    """Draws a melody in Hz: small steps on the scale, within 7 semitones of its centre."""
    scale = np.array([note for note in range(128) if (note - style.key) % 12 in MAJOR])
    centre = 69 + 12 * np.log2(speaker_hz / 440) + style.transpose
    allowed = scale[np.abs(scale - centre) <= 7]
    at = int(rng.integers(len(allowed)))
    steps = rng.choice([-3, -2, -1, -1, 0, 0, 1, 1, 2, 3], size=count)
    pitches = []
    for step in steps:
        at = int(np.clip(at + step, 0, len(allowed) - 1))
        pitches.append(allowed[at])
    hz: Array = 440 * 2 ** ((np.array(pitches) - 69) / 12)
    return hz


def _pitch_curve(melody: Array, note_of: Array, rng: np.random.Generator, style: Style) -> Array:
    """Computes the pitch of each frame in Hz: portamento, scoop, vibrato and drift."""
    current_note = np.maximum.accumulate(np.where(note_of >= 0, note_of, 0))
    cents = 1200 * np.log2(melody[current_note])
    side = int(style.glide_ms / _FRAME_MS / 2)
    window = np.hanning(2 * side + 3)[1:-1]
    smooth = np.convolve(np.pad(cents, side, mode="edge"), window / window.sum(), mode="valid")
    starts = np.flatnonzero(np.diff(current_note, prepend=-1))
    frames = np.arange(len(current_note))
    age_s = (frames - starts[np.searchsorted(starts, frames, "right") - 1]) * _FRAME_MS / 1000
    # The vibrato fades in over 200 ms.
    depth = style.vibrato_cents * np.clip((age_s - style.vibrato_after_s) / 0.2, 0, 1)
    vibrato = np.sin(2 * np.pi * style.vibrato_hz * frames * _FRAME_MS / 1000)
    noise = rng.standard_normal(len(current_note))
    drift = np.convolve(noise, np.hanning(41) / 20, mode="same")[: len(noise)]
    hz: Array = 2 ** ((smooth + depth * vibrato + style.drift * drift) / 1200)
    if style.scoop_cents:
        depth_cents = style.scoop_cents * rng.random(len(melody))[current_note]
        hz = hz * 2 ** (-depth_cents * np.exp(-age_s / _SCOOP_S) / 1200)
    return hz


def _shift_formants(envelope: Array, style: Style) -> Array:
    """Stretches the envelope along frequency by the formant scales of the style."""
    hz = np.linspace(0, SAMPLE_RATE / 2, envelope.shape[1])
    factor = style.formant_scale * np.interp(hz, (800, 2000), (1, style.high_formant_scale))
    bins = np.minimum(np.arange(envelope.shape[1]) / factor, envelope.shape[1] - 1)
    low = np.floor(bins).astype(int)
    high = np.minimum(low + 1, envelope.shape[1] - 1)
    fraction = bins - low
    warped = (1 - fraction) * envelope[:, low] + fraction * envelope[:, high]
    return np.ascontiguousarray(warped)


def _fill_top_band(envelope: Array) -> Array:
    """Raises the power envelope above 7 kHz to a minimum.

    The minimum falls by 12 dB per octave from the mean of the band from 4 to 7 kHz.
    """
    hz = np.linspace(0, SAMPLE_RATE / 2, envelope.shape[1])
    low, high = _KNOWN_BAND_HZ
    known = envelope[:, (hz > low) & (hz < high)].mean(axis=1, keepdims=True)
    slope = np.where(hz > high, np.sqrt(low * high) / np.maximum(hz, 1), 0.0) ** 4
    filled: Array = np.maximum(envelope, known * slope)
    return filled


def _brightness_gains(bins: int, style: Style) -> Array:
    """Returns gains for the power envelope of vowels, (bins,): singer's formant and brightness."""
    hz = np.linspace(0, SAMPLE_RATE / 2, bins)
    distance = (hz - _SINGER_FORMANT_HZ) / _SINGER_FORMANT_WIDTH_HZ
    formant_db = style.singer_formant_db * np.exp(-0.5 * distance**2)
    tilt_db = style.brightness_db * np.clip(np.log2(np.maximum(hz, 1) / 500), 0, 4)
    gains: Array = 10 ** ((formant_db + tilt_db) / 10)
    return gains


def _add(first: Array, second: Array) -> Array:
    """Adds two signals; the result is as long as the longer one."""
    shorter, longer = sorted((first, second), key=len)
    total: Array = longer.copy()
    total[: len(shorter)] += shorter
    return total
