"""Data sets on disk: folders of songs as in MUSDB18-HQ, and our own pools of stems.

SET/train/SONG/{vocals,drums,bass,other}.wav        MUSDB18-HQ: each from a song of its own
SET/train/vocals/*.wav, SET/train/instrumental/*    pools: any voice over any music
SET/test/SONG/{mixture,vocals,…}.wav                songs to be measured on; so SET/valid
SET/SONG/{mixture,vocals}.wav                       any folder of songs, for evaluation
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import soundfile

from bsmamba2.audio.array import Audio
from bsmamba2.errors import AudioError, printable
from bsmamba2_training.voices import SAMPLE_RATE

SUFFIXES = (".wav", ".flac", ".ogg")
WHOLES = ("instrumental", "accompaniment", "no_vocals")
"""Names of all but the vocals in one file: beside it, parts of it are not added again."""

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
        frames = 0
        for path in self.files:
            with _opened(path) as file:
                frames = max(frames, file.frames)
        return frames / SAMPLE_RATE

    def read(self, start: int = 0, samples: int = -1) -> Audio:
        """The sum of the files from sample ``start``, (2, samples), zeros after their end."""
        length = round(self.seconds * SAMPLE_RATE) - start if samples < 0 else samples
        out = np.zeros((2, length), np.float32)
        for path in self.files:
            with _opened(path) as file:
                file.seek(min(start, file.frames))
                block = file.read(length, dtype="float32", always_2d=True).T
                out[:, : block.shape[1]] += block[:2]
        return out


@dataclass(frozen=True)
class Pools:
    """What training draws from."""

    vocals: tuple[Track, ...]
    instruments: tuple[tuple[Track, ...], ...]
    """A pool for each: drums, bass and other; or one, of whole pieces of music."""
    has_own_levels: bool
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
        for track in (self.vocals, self.others):
            if track and abs(track.seconds - self.mixture.seconds) > 0.1:
                raise AudioError(
                    f"{track.files[0]} must be as long as its mixture, {self.mixture.seconds:.1f} "
                    f"s; it is {track.seconds:.1f} s long"
                )
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
        pools = Pools(vocals, (music,) if music else (), has_own_levels=False)
    else:
        found = training_songs(dataset)
        instruments: dict[str, list[Track]] = {}
        for song in found:
            for path in song.others.files if song.others else ():
                instruments.setdefault(path.stem, []).append(Track((path,)))
        pools = Pools(
            tuple(song.vocals for song in found),
            tuple(tuple(tracks) for tracks in instruments.values()),
            has_own_levels=True,
        )
    if not pools.vocals or not pools.instruments:
        raise AudioError(
            f"{train} must hold SONG/vocals.wav beside other stems, as MUSDB18-HQ, or vocals/*.wav "
            "and instrumental/*.wav, as bsmamba2 dataset makes them; it holds neither"
        )
    return pools


def training_songs(dataset: Path) -> list[Song]:
    """The songs of ``dataset/train``, less those that MUSDB18 is validated on."""
    return [song for song in _songs(dataset / "train") if song.name not in MUSDB_VALIDATION]


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
        vocals, mixture = stems.pop("vocals"), stems.pop("mixture", None)
        wholes = [stems[name] for name in WHOLES if name in stems]
        rest = tuple(wholes[:1] or stems.values())
        whole = (mixture,) if mixture else (vocals, *rest)
        others = Track(rest) if rest else None
        found.append(Song(path.name, Track(whole), Track((vocals,)), others))
    return found


@contextmanager
def _opened(path: Path) -> Iterator[soundfile.SoundFile]:
    """A file at 44.1 kHz that can be read."""
    try:
        with soundfile.SoundFile(path) as file:
            if file.samplerate != SAMPLE_RATE:
                raise AudioError(f"{path} must be at {SAMPLE_RATE} Hz; it is at {file.samplerate}")
            yield file
    except soundfile.LibsndfileError as error:
        raise AudioError(f"{path} cannot be read: {printable(str(error))}") from None


def _audio(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.suffix in SUFFIXES)
