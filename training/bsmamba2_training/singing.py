"""Speech into singing: the WORLD vocoder with another melody, rhythm and throat.

1. **Analyse.** Pitch, spectral envelope and aperiodicity every 5 ms (Morise et al. 2016).
2. **Syllables.** Voiced stretches, split where their energy dips.
3. **Notes.** A walk on a scale for each syllable, around the speaker's own pitch.
4. **Time.** Each voiced stretch lasts to the next multiple of an eighth, or is held for up to
   eight of them; consonants keep their length, or are left out, as in a vocalise.
5. **Pitch.** Notes joined by portamento, with vibrato on the long ones and a little drift; held
   ones are reached from below, too, and drift more. A straight line would be an organ's.
6. **Throat.** The envelope is stretched along frequency, which makes another speaker. Where a voice
   holds its notes, vowels are bright and ring as trained singers' do (Sundberg 1974), and there is
   something where the recording ended at 8 or 11 kHz.
7. **Unison.** Others of the same throat may join, each a little late, out of tune, and with a
   vibrato of its own.

The same seed gives the same audio.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import numpy as np

from bsmamba2.audio.array import Audio
from bsmamba2_training.voices import LEVEL_DB, SAMPLE_RATE, Array, gate, levelled

MAJOR = (0, 2, 4, 5, 7, 9, 11)
_FRAME_MS = 5.0
_FLOOR_HZ, _CEILING_HZ = 71.0, 800.0
_NOTES = (1, 1, 1, 2, 2, 3, 4, 6, 8)
"""Eighths that a held note may last."""
_EDGE_FRAMES = 14
"""Of a held note's beginning and end, 70 ms each, which keep their speed: vowels glide there."""
_RING_HZ, _RING_WIDTH_HZ = 2900.0, 500.0
_KNOWN_HZ = (4000.0, 7000.0)
"""The highest band that every recording has; above it some have nothing."""
_SCOOP_S = 0.07
"""In which a scoop falls to 37%."""
_DETUNED_CENTS, _LATE_S = 10.0, 0.03
"""Standard deviation, and the most, of a voice in unison."""


@dataclass(frozen=True)
class Style:
    """How a line is sung."""

    key: int
    """The scale's tonic, semitones above C; the scale is major (or its relative minor)."""
    eighth_ms: float
    """The grid that syllables end on."""
    transpose: float
    """Centre of the melody above the speaker's median pitch, semitones."""
    throat: float
    """Formants times this."""
    vibrato_cents: float
    vibrato_hz: float
    held: bool = False
    """Notes of one to eight eighths, and a top; otherwise hardly longer than in speech."""
    glide_ms: float = 55.0
    """Of the portamento from note to note."""
    scoop_cents: float = 0.0
    """How far below itself a note begins, at most."""
    drift: float = 6.0
    """Wander around the note: a fifth of it is the standard deviation in cents."""
    vibrato_after_s: float = 0.2
    """From a note's beginning."""
    legato: bool = False
    """Of held notes: vowels alone, with a pause before one in five."""
    mouth: float = 1.0
    """Formants above 2 kHz times this once more, those below 800 Hz not: throats differ so, too."""
    ring_db: float = 0.0
    """Height of the singer's formant, at 2.9 kHz."""
    bright_db: float = 0.0
    """Gain an octave, from 500 Hz on to four octaves above: loud voices are bright."""
    unison: int = 1
    """Voices that sing it together."""

    @classmethod
    def drawn(cls, rng: np.random.Generator, key: int | None = None) -> Style:
        """A style at random; in ``key`` where the music has one."""
        return cls(
            key=int(rng.integers(12)) if key is None else key,
            eighth_ms=float(rng.uniform(150, 330)),
            transpose=float(rng.uniform(0, 9)),
            throat=float(rng.uniform(0.88, 1.14)),
            vibrato_cents=float(rng.uniform(10, 60)),
            vibrato_hz=float(rng.uniform(4.8, 6.6)),
        )

    @classmethod
    def drawn_held(cls, rng: np.random.Generator) -> Style:
        """A style at random of one who holds notes, high and low, plainly or in full voice."""
        return cls(
            key=int(rng.integers(12)),
            eighth_ms=float(rng.uniform(150, 330)),
            transpose=float(rng.uniform(-2, 15)),
            throat=float(rng.uniform(0.82, 1.22)),
            vibrato_cents=float(rng.uniform(20, 150)),
            vibrato_hz=float(rng.uniform(4.5, 7.5)),
            held=True,
            glide_ms=float(rng.uniform(55, 350)),
            scoop_cents=float(rng.uniform(0, 400)),
            drift=float(rng.uniform(6, 60)),
            vibrato_after_s=float(rng.uniform(0, 0.4)),
            legato=bool(rng.random() < 0.4),
            mouth=float(rng.uniform(0.85, 1.18)),
            ring_db=float(rng.uniform(0, 12)),
            bright_db=float(rng.uniform(-1, 3)),
            unison=int(rng.choice([1, 1, 1, 2, 3])),
        )


def sing(speech: Audio, rng: np.random.Generator, style: Style) -> Audio | None:
    """A spoken phrase, sung.

    Args:
        speech: (samples,) at 44.1 kHz, clean; exact zeros where it is silent.

    Returns:
        (samples',), about as loud as speech is made by :func:`~bsmamba2_training.voices.levelled`;
        None where no pitch was found.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pyworld asks for its version in an old way
        import pyworld

    x = speech.astype(np.float64)
    f0, times = pyworld.dio(x, SAMPLE_RATE, _FLOOR_HZ, _CEILING_HZ, frame_period=_FRAME_MS)
    f0 = pyworld.stonemask(x, f0, times, SAMPLE_RATE)
    notes = syllables(f0, speech)
    if not notes:
        return None
    envelope = pyworld.cheaptrick(x, f0, times, SAMPLE_RATE)
    aperiodicity = pyworld.d4c(x, f0, times, SAMPLE_RATE)

    eighths = rng.choice(_NOTES, len(notes)) if style.held else None
    apart = rng.random(len(notes)) < 0.2 if style.legato else np.ones(len(notes), bool)
    source, note_of = _time_map(len(f0), notes, style.eighth_ms / _FRAME_MS, eighths, apart)
    melody = _walk(len(notes), float(np.median(f0[f0 > 0])), rng, style)
    low = np.floor(source).astype(int)
    high = np.minimum(low + 1, len(f0) - 1)
    part = (source - low)[:, np.newaxis]
    envelope = np.exp((1 - part) * np.log(envelope[low]) + part * np.log(envelope[high]))
    aperiodicity = (1 - part) * aperiodicity[low] + part * aperiodicity[high]
    voiced = (f0[low] > 0) & (note_of >= 0)
    if style.held:
        envelope = _topped(envelope)
    envelope = _throat(envelope, style)
    envelope[voiced] *= _brightness(envelope.shape[1], style)
    aperiodicity = np.ascontiguousarray(aperiodicity)
    together = np.zeros(1)
    for _ in range(style.unison):
        singer, line, late = style, melody, 0
        if style.unison > 1:
            singer = replace(style, vibrato_hz=style.vibrato_hz * rng.uniform(0.9, 1.1))
            line = melody * 2 ** (_DETUNED_CENTS / 1200 * rng.standard_normal())
            late = int(rng.uniform(0, _LATE_S) * SAMPLE_RATE)
        pitch = np.where(voiced, _pitch(line, note_of, rng, singer), 0.0)
        one = pyworld.synthesize(pitch, envelope, aperiodicity, SAMPLE_RATE, _FRAME_MS)
        together = _sum(together, np.pad(one, (late, 0)))
    if not np.abs(together).max() > 1e-4:
        return None
    sung = levelled(together.astype(np.float32))
    return sung * gate(sung, LEVEL_DB)


def syllables(f0: Array, speech: Array) -> list[tuple[int, int]]:
    """Voiced stretches as [start, stop) in frames, split at dips of 3 dB, none under 40 ms."""
    hop = int(SAMPLE_RATE * _FRAME_MS / 1000)
    padded = np.pad(speech, (0, max(0, len(f0) * hop - len(speech))))[: len(f0) * hop]
    level = 10 * np.log10(np.square(padded.reshape(-1, hop)).mean(axis=1) + 1e-10)
    level = np.convolve(level, np.hanning(11) / np.hanning(11).sum(), mode="same")
    edges = np.flatnonzero(np.diff(np.pad((f0 > 0).astype(int), 1)))
    found: list[tuple[int, int]] = []
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        at = int(start)
        for dip in range(int(start) + 20, int(stop) - 20):
            near = level[dip - 8 : dip + 9]
            louder = min(level[at:dip].max(), level[dip:stop].max())
            if dip - at >= 20 and level[dip] <= near.min() and louder - level[dip] > 3:
                found.append((at, dip))
                at = dip
        found.append((at, int(stop)))
    return [(start, stop) for start, stop in found if stop - start >= 8]


def _time_map(
    frames: int,
    notes: list[tuple[int, int]],
    grid: float,
    eighths: Array | None,
    apart: Array,
) -> tuple[Array, Array]:
    """For each new frame, the old one it is made of, and the note it belongs to (−1: none)."""
    source: list[Array] = []
    note_of: list[Array] = []
    at, length = 0, 0
    for number, (start, stop) in enumerate(notes):
        if start > at and apart[number]:  # a consonant or a pause, at its own speed
            source.append(np.arange(at, start, dtype=np.float64))
            note_of.append(np.full(start - at, -1))
            length += start - at
        kept = stop - start
        if eighths is None:
            until = np.ceil((length + 1.2 * kept) / grid) * grid
            new = int(np.clip(until - length, kept, 5 * kept))
            source.append(np.linspace(start, stop - 1, new))
        else:
            # A note begins on a whole frame, which may lie before its eighth.
            until = (np.floor((length + 1) / grid) + eighths[number]) * grid
            new, edge = max(round(until - length), kept), min(_EDGE_FRAMES, kept // 3)
            ends = (0, edge, new - 1 - edge, new - 1)
            old = (start, start + edge, stop - 1 - edge, stop - 1)
            source.append(np.interp(np.arange(new), ends, old))
        note_of.append(np.full(new, number))
        at, length = stop, length + new
    source.append(np.arange(at, frames, dtype=np.float64))
    note_of.append(np.full(max(0, frames - at), -1))
    return np.concatenate(source), np.concatenate(note_of)


def _walk(count: int, speaker_hz: float, rng: np.random.Generator, style: Style) -> Array:
    """A melody in Hz: small steps on the scale, at most an octave around its centre."""
    scale = np.array([note for note in range(128) if (note - style.key) % 12 in MAJOR])
    centre = 69 + 12 * np.log2(speaker_hz / 440) + style.transpose
    near = scale[np.abs(scale - centre) <= 7]
    at = int(rng.integers(len(near)))
    steps = rng.choice([-3, -2, -1, -1, 0, 0, 1, 1, 2, 3], size=count)
    degrees = []
    for step in steps:
        at = int(np.clip(at + step, 0, len(near) - 1))
        degrees.append(near[at])
    hz: Array = 440 * 2 ** ((np.array(degrees) - 69) / 12)
    return hz


def _pitch(melody: Array, note_of: Array, rng: np.random.Generator, style: Style) -> Array:
    """Hz for each frame: portamento, a scoop, vibrato that sets in over 200 ms, drift."""
    held = np.maximum.accumulate(np.where(note_of >= 0, note_of, 0))
    cents = 1200 * np.log2(melody[held])
    side = int(style.glide_ms / _FRAME_MS / 2)
    window = np.hanning(2 * side + 3)[1:-1]
    smooth = np.convolve(np.pad(cents, side, mode="edge"), window / window.sum(), mode="valid")
    starts = np.flatnonzero(np.diff(held, prepend=-1))
    frames = np.arange(len(held))
    age_s = (frames - starts[np.searchsorted(starts, frames, "right") - 1]) * _FRAME_MS / 1000
    depth = style.vibrato_cents * np.clip((age_s - style.vibrato_after_s) / 0.2, 0, 1)
    wave = np.sin(2 * np.pi * style.vibrato_hz * frames * _FRAME_MS / 1000)
    drift = np.convolve(rng.standard_normal(len(held)), np.hanning(41) / 20, mode="same")
    hz: Array = 2 ** ((smooth + depth * wave + style.drift * drift[: len(held)]) / 1200)
    if style.scoop_cents:
        scoops = style.scoop_cents * rng.random(len(melody))[held] * np.exp(-age_s / _SCOOP_S)
        hz = hz * 2 ** (-scoops / 1200)
    return hz


def _throat(envelope: Array, style: Style) -> Array:
    """The envelope, stretched along frequency by the style's throat and mouth."""
    hz = np.linspace(0, SAMPLE_RATE / 2, envelope.shape[1])
    factor = style.throat * np.interp(hz, (800, 2000), (1, style.mouth))
    bins = np.minimum(np.arange(envelope.shape[1]) / factor, envelope.shape[1] - 1)
    low = np.floor(bins).astype(int)
    high = np.minimum(low + 1, envelope.shape[1] - 1)
    part = bins - low
    warped: Array = np.ascontiguousarray((1 - part) * envelope[:, low] + part * envelope[:, high])
    return warped


def _topped(envelope: Array) -> Array:
    """The power envelope with something at its top.

    Above 7 kHz it is at least what a fall of 12 dB an octave from its mean over 4 to 7 kHz leaves.
    """
    hz = np.linspace(0, SAMPLE_RATE / 2, envelope.shape[1])
    low, high = _KNOWN_HZ
    known = envelope[:, (hz > low) & (hz < high)].mean(axis=1, keepdims=True)
    top = np.where(hz > high, np.sqrt(low * high) / np.maximum(hz, 1), 0.0) ** 4
    topped: Array = np.maximum(envelope, known * top)
    return topped


def _brightness(bins: int, style: Style) -> Array:
    """Gains of a vowel's power envelope, (bins,): a singer's formant, and a brighter source."""
    hz = np.linspace(0, SAMPLE_RATE / 2, bins)
    ring = style.ring_db * np.exp(-0.5 * ((hz - _RING_HZ) / _RING_WIDTH_HZ) ** 2)
    bright = style.bright_db * np.clip(np.log2(np.maximum(hz, 1) / 500), 0, 4)
    gains: Array = 10 ** ((ring + bright) / 10)
    return gains


def _sum(first: Array, second: Array) -> Array:
    """Both at once, as long as the longer one."""
    shorter, longer = sorted((first, second), key=len)
    total: Array = longer.copy()
    total[: len(shorter)] += shorter
    return total
