"""Labels songs with singers: what a teacher separates, gated, and where it can be trusted.

The teacher is Spleeter (:mod:`teacher`). Its vocals contain some of every drum and guitar, so only
stretches in which the voice is a large part of the song are kept, and everything else becomes
exactly zero. Between the stretches with a clear voice and those with clearly none, nobody knows;
there a song has the weight 0 in training.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from bsmamba2.audio.array import Audio
from bsmamba2.files.part_file import replacing
from bsmamba2_training.songs import PEAK, draw_excerpt, write_song
from bsmamba2_training.voices import LEVEL_DB, SAMPLE_RATE

Flags = npt.NDArray[np.bool_]

SUNG_DB = -14.0
"""Level of the vocals over the song above which somebody certainly sings."""
UNSUNG_DB = -26.0
"""Level below which nobody does."""
WINDOW, HOP = 4 * 4410, 4410
"""The levels are those of 0.5 s, every 0.1 s: the window and the hop at its middle."""
SHORTEST = 9
"""Shorter stretches, in hops, are drums more often than voices. A short burst gives five hops."""
RAMP = 441
GAP = 6615
"""Silence between the stretches of a singer, in samples."""
VALID_S = 20.0
"""Length of a song of a held-out singer."""


def label(mixture: Audio, vocals: Audio) -> tuple[Audio, Audio]:
    """Gates a teacher's vocals.

    Args:
        mixture, vocals: (2, samples).

    Returns:
        The vocals, exactly zero outside clear singing, (2, samples), and their weight, (samples,):
        1 where somebody certainly sings or certainly does not, and 0 elsewhere.
    """
    samples = mixture.shape[1]
    power, total = _window_power(vocals), _window_power(mixture)
    sung_share, unsung_share = 10 ** (SUNG_DB / 10), 10 ** (UNSUNG_DB / 10)
    is_sung = _without_short_runs((power > sung_share * total) & (total > 1e-10))
    is_unsung = (power < unsung_share * total) | (total <= 1e-10)
    gains = np.repeat(is_sung, HOP)[:samples].astype(np.float32)
    # The ramps lie within the sung stretches.
    before = np.cumsum(np.pad(gains, (RAMP // 2 + 1, RAMP // 2)), dtype=np.int64)
    inside = (before[RAMP:] - before[:-RAMP]) / RAMP
    gains = (np.clip(2 * inside - 1, 0, 1) * gains).astype(np.float32)
    weight = np.repeat(is_sung | is_unsung, HOP)[:samples].astype(np.float32)
    return vocals * gains, weight


def join_singing(gated: Audio) -> Audio:
    """Joins the sung stretches with short gaps, at the level of other voices, (2, samples)."""
    is_sounding = np.concatenate([[False], gated.any(axis=0), [False]])
    edges = np.flatnonzero(np.diff(is_sounding.astype(np.int8)))
    # A single sample of zero inside a voice is no gap.
    pieces: list[Audio] = []
    at = 0
    while at < len(edges):
        start, stop = edges[at], edges[at + 1]
        while at + 2 < len(edges) and edges[at + 2] - stop < HOP:
            at += 2
            stop = edges[at + 1]
        pieces += [gated[:, start:stop], np.zeros((2, GAP), np.float32)]
        at += 2
    if not pieces:
        return np.zeros((2, 0), np.float32)
    joined = np.concatenate(pieces, axis=1)
    rms = np.sqrt(np.square(joined).sum() / max(1, np.count_nonzero(joined)))
    gain = 10 ** (LEVEL_DB / 20) / rms
    out: Audio = joined * min(gain, 0.98 / float(np.abs(joined).max()))
    return out


def write_labelled_song(mixture: Audio, vocals: Audio, folder: Path, singer: Path) -> None:
    """Writes a song with its label, and its singing alone to the file ``singer``.

    The folder appears last, when all is complete.
    """
    gated, weight = label(mixture, vocals)
    _write_song(mixture, gated, weight, folder, singer)


def write_song_with_truth(mixture: Audio, vocals: Audio, folder: Path, singer: Path) -> None:
    """The same for a song whose vocals are known, and exactly zero where nobody sings."""
    _write_song(mixture, vocals, np.ones(mixture.shape[1], np.float32), folder, singer)


def _write_song(mixture: Audio, vocals: Audio, weight: Audio, folder: Path, singer: Path) -> None:
    scale = min(1.0, 0.98 / max(1e-9, float(np.abs(mixture).max())))
    singing = join_singing(vocals)
    if singing.size:
        singer.parent.mkdir(parents=True, exist_ok=True)
        with replacing(singer) as path:
            soundfile.write(path, singing.T, SAMPLE_RATE, "PCM_16", format="WAV")
    unfinished = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    files = {"mixture": scale * mixture.T, "vocals": scale * vocals.T, "weight": weight}
    for name, audio in files.items():
        soundfile.write(unfinished / f"{name}.wav", audio, SAMPLE_RATE, "PCM_16")
    unfinished.rename(folder)


def write_held_out_songs(
    mixture: Audio,
    vocals: Audio,
    tracks: Sequence[Path],
    folder: Path,
    rng: np.random.Generator,
) -> None:
    """Writes songs of a held-out singer over other music, to choose between networks.

    Args:
        tracks: one file of music per song.
        folder: the first song; the others are ``folder-2`` and so on. It appears last.
    """
    gated, _ = label(mixture, vocals)
    samples = int(VALID_S * SAMPLE_RATE)
    count = np.cumsum(np.concatenate([[0], gated.any(axis=0)]))
    starts = np.arange(0, max(1, gated.shape[1] - samples), samples // 4)
    sung = [int(count[min(start + samples, gated.shape[1])] - count[start]) for start in starts]
    chosen: list[int] = []
    for number in np.argsort(sung)[::-1]:  # the parts with the most singing that do not overlap
        if all(abs(starts[number] - other) >= samples for other in chosen):
            chosen.append(int(starts[number]))
    written: list[tuple[Audio, Audio]] = []
    for track, start in zip(tracks, chosen, strict=False):
        voice = gated[:, start : start + samples]
        voice = np.pad(voice, ((0, 0), (0, samples - voice.shape[1])))
        music = draw_excerpt((track,), samples, rng)
        sounding = voice[:, voice.any(axis=0)]
        if not sounding.size:
            continue
        level = np.sqrt(np.square(sounding).mean() / np.square(music).mean())
        voice = voice * (10 ** (rng.uniform(-6, 2) / 20) / level)
        scale = PEAK / float(np.abs(music + voice).max())
        written.append((voice * scale, music * scale))
    for number in range(len(written), 0, -1):
        name = folder.name if number == 1 else f"{folder.name}-{number}"
        write_song(written[number - 1], folder.with_name(name))


def _window_power(audio: Audio) -> npt.NDArray[np.float64]:
    """Returns the power of the window around each hop, (hops,)."""
    padded = np.pad(audio, ((0, 0), (0, -audio.shape[1] % HOP)))
    hops = np.square(padded, dtype=np.float64).reshape(len(audio), -1, HOP).mean(axis=(0, 2))
    width = WINDOW // HOP + 1
    out: npt.NDArray[np.float64] = np.convolve(hops, np.ones(width) / width, mode="same")
    return out[: len(hops)]


def _without_short_runs(flags: Flags) -> Flags:
    edges = np.flatnonzero(np.diff(flags.astype(np.int8), prepend=0, append=0))
    out = flags.copy()
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        if stop - start < SHORTEST:
            out[start:stop] = False
    return out
