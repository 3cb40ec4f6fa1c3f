"""Data sets on disk: folders of songs as in MUSDB18-HQ, and our own pools of stems.

SET/train/SONG/{vocals,drums,bass,other}.wav        MUSDB18-HQ: all but the vocals are added
SET/train/vocals/*.wav, SET/train/instrumental/*    pools: any voice over any music
SET/test/SONG/{mixture,vocals,…}.wav                songs to be measured on; so SET/valid
SET/SONG/{mixture,vocals}.wav                       any folder of songs, for evaluation
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import soundfile

from bsmamba2.array import Audio
from bsmamba2.errors import AudioError
from bsmamba2_training.voices import SAMPLE_RATE

SUFFIXES = (".wav", ".flac", ".ogg")

# The fourteen that everybody who trains on MUSDB18 keeps for validation.
MUSDB_VALIDATION = frozenset(
    {
        "Actions - One Minute Smile",
        "Clara Berry And Wooldog - Waltz For My Victims",
        "Johnny Lokke - Promises & Lies",
        "Patrick Talbot - A Reason To Leave",
        "Triviul - Angelsaint",
        "Alexander Ross - Goodbye Bolero",
        "Fergessen - Nos Palpitants",
        "Leaf - Summerghost",
        "Skelpolu - Human Mistakes",
        "Young Griffo - Pennies",
        "ANiMAL - Rockshow",
        "James May - On The Line",
        "Meaxic - Take A Step",
        "Traffic Experiment - Sirens",
    }
)


@dataclass(frozen=True)
class Track:
    """Files that are one stem together, of one length, at 44.1 kHz."""

    files: tuple[Path, ...]

    @cached_property
    def seconds(self) -> float:
        """Length of the longest file."""
        lengths = []
        for path in self.files:
            info = soundfile.info(path)
            if info.samplerate != SAMPLE_RATE:
                raise AudioError(f"{path} must be at {SAMPLE_RATE} Hz; it is at {info.samplerate}")
            lengths.append(info.frames / info.samplerate)
        return float(max(lengths))

    def read(self, start: int = 0, samples: int = -1) -> Audio:
        """The sum of the files from sample ``start``, (2, samples), zeros after their end."""
        length = round(self.seconds * SAMPLE_RATE) - start if samples < 0 else samples
        out = np.zeros((2, length), np.float32)
        for path in self.files:
            with soundfile.SoundFile(path) as file:
                file.seek(min(start, file.frames))
                block = file.read(length, dtype="float32", always_2d=True).T
                out[:, : block.shape[1]] += block[:2]
        return out


@dataclass(frozen=True)
class Pools:
    """What training draws from."""

    vocals: tuple[Track, ...]
    instrumental: tuple[Track, ...]
    paired: bool
    """Whether they come from songs, at the levels they have there."""


@dataclass(frozen=True)
class Song:
    """A mixture and its two stems."""

    name: str
    mixture: Track
    vocals: Track
    others: Track | None
    """The rest; None means the mixture less the vocals."""

    def stems(self) -> tuple[Audio, Audio, Audio]:
        """Mixture, vocals and instrumental, each (2, samples)."""
        mixture = self.mixture.read()
        vocals = self.vocals.read(0, mixture.shape[1])
        if self.others is None:
            return mixture, vocals, mixture - vocals
        return mixture, vocals, self.others.read(0, mixture.shape[1])


def training_pools(dataset: Path) -> Pools:
    """The stems of ``dataset/train``.

    Raises:
        AudioError: there are none.
    """
    train = dataset / "train"
    vocals = tuple(Track((path,)) for path in _audio(train / "vocals"))
    if vocals:
        music = tuple(Track((path,)) for path in _audio(train / "instrumental"))
        pools = Pools(vocals, music, paired=False)
    else:
        songs = [song for song in _songs(train) if song.name not in MUSDB_VALIDATION]
        with_rest = [song for song in songs if song.others]
        pools = Pools(
            tuple(song.vocals for song in with_rest),
            tuple(song.others for song in with_rest if song.others),
            paired=True,
        )
    if not pools.vocals or not pools.instrumental:
        raise AudioError(
            f"{train} must hold SONG/vocals.wav beside other stems, as MUSDB18-HQ, or vocals/*.wav "
            "and instrumental/*.wav, as bsmamba2 dataset makes them; it holds neither"
        )
    return pools


def songs(dataset: Path, split: str) -> tuple[Song, ...]:
    """The songs of a split: ``dataset/split/*``, else, for ``test``, ``dataset/*``.

    MUSDB18-HQ has no folder for validation: there it is fourteen songs of ``train``.

    Raises:
        AudioError: there are none.
    """
    found = _songs(dataset / split)
    if not found and split == "valid":
        found = [song for song in _songs(dataset / "train") if song.name in MUSDB_VALIDATION]
    if not found and split == "test":
        found = _songs(dataset)
    if not found:
        raise AudioError(
            f"{dataset} must hold {split}/SONG/mixture.wav and vocals.wav, or SONG/mixture.wav and "
            "vocals.wav; it holds neither"
        )
    return tuple(found)


def _songs(folder: Path) -> list[Song]:
    found = []
    for path in sorted(folder.glob("*")):
        stems = {file.stem: file for file in _audio(path)} if path.is_dir() else {}
        if "vocals" not in stems or not ("mixture" in stems or len(stems) > 1):
            continue
        rest = [file for name, file in stems.items() if name not in ("mixture", "vocals")]
        whole = (stems["mixture"],) if "mixture" in stems else tuple(stems.values())
        others = Track(tuple(rest)) if rest else None
        found.append(Song(path.name, Track(whole), Track((stems["vocals"],)), others))
    return found


def _audio(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.suffix in SUFFIXES)
