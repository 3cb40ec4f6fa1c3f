"""Builds tracks of real singers from the repositories in :mod:`repositories`.

SET/train/singers/NAME.wav             solo singing, and the vocals of songs with stems
SET/train/instrumental/NAME-SONG.wav   the music of songs with stems
SET/train/songs/NAME-SONG/             these songs, and whole songs that a teacher separates
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import soundfile
import soxr

from bsmamba2.audio.array import Audio
from bsmamba2.files.part_file import replacing
from bsmamba2.files.song_file import SongFile
from bsmamba2_training import singers
from bsmamba2_training.repositories import Repository
from bsmamba2_training.voices import (
    SAMPLE_RATE,
    clean,
    frame_levels_db,
    gate_gains,
    join,
    read_mono,
)


def songs_in(repository: Repository, checkout: Path) -> dict[str, list[Path]]:
    """Returns the files to use by song, in a fixed order; all in one song if there are none."""
    found: dict[str, list[Path]] = {}
    for path in sorted(checkout.rglob("*")):
        match = re.search(repository.files, path.relative_to(checkout).as_posix())
        if match and path.is_file() and not path.is_symlink():
            song = match[1] if match.re.groups else ""
            name = "-".join([repository.name, *song.split()])
            found.setdefault(name, []).append(path)
    return found


def write_solo(paths: Iterable[Path], singer: Path, rng: np.random.Generator) -> None:
    """Writes recordings of one singer, levelled and exactly silent between phrases, to one file."""
    phrases = [voice for path in paths if (voice := clean(read_mono(path))) is not None]
    _write(singer, join(phrases, rng)[np.newaxis])


def write_stems(
    repository: Repository, paths: Iterable[Path], music: Path, singer: Path, song: Path
) -> None:
    """Writes the music, the vocals and the whole song; the song's folder appears last."""
    stems = {True: np.zeros((2, 0), np.float32), False: np.zeros((2, 0), np.float32)}
    for path in paths:
        is_vocal = re.search(repository.vocals, path.name) is not None
        stems[is_vocal] = _sum(stems[is_vocal], read_song(path))
    vocals, accompaniment = stems[True], stems[False]
    level_db = float(np.percentile(frame_levels_db(vocals.mean(0)), 95))
    vocals = vocals * gate_gains(np.sqrt(np.square(vocals).mean(axis=0)), level_db)
    mixture = _sum(vocals, accompaniment)
    vocals = _sum(vocals, np.zeros_like(mixture))
    _write(music, accompaniment / max(1.0, float(np.abs(accompaniment).max()) / 0.98))
    singers.write_song_with_truth(mixture, vocals, song, singer)


def read_song(path: Path) -> Audio:
    """Reads any format as two channels at 44.1 kHz, (2, samples)."""
    with SongFile(path) as file:
        audio = np.concatenate([np.asarray(block, np.float32) for block in file.blocks()], axis=-1)
        rate = file.sample_rate
    audio = np.repeat(audio, 2, axis=0) if len(audio) == 1 else audio[:2]
    if rate != SAMPLE_RATE:
        audio = soxr.resample(audio.T, rate, SAMPLE_RATE).T
    return np.ascontiguousarray(audio, np.float32)


def _sum(one: Audio, other: Audio) -> Audio:
    samples = max(one.shape[1], other.shape[1])
    padded = [np.pad(part, ((0, 0), (0, samples - part.shape[1]))) for part in (one, other)]
    out: Audio = padded[0] + padded[1]
    return out


def _write(path: Path, audio: Audio) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        soundfile.write(unfinished, audio.T, SAMPLE_RATE, "PCM_16", format="WAV")
