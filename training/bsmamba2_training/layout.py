"""Layouts of data sets on disk: folders of songs, as in MUSDB18-HQ, and pools of stems.

SET/train/SONG/{vocals,drums,bass,other}.wav        MUSDB18-HQ: items mix stems of different songs
SET/train/vocals/*.wav, SET/train/instrumental/*    pools: items mix any voice with any music
SET/train/singers/*.wav                             more pools: singers from songs, and
SET/train/songs/SONG/{mixture,vocals,weight}.wav    whole songs that a teacher separated
SET/test/SONG/{mixture,vocals,…}.wav                songs for evaluation; SET/valid is the same
SET/singers/SONG/{mixture,vocals,…}.wav             songs of held-out singers, to score a run
SET/SONG/{mixture,vocals}.wav                       any folder of songs, for evaluation only
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
INSTRUMENTAL_NAMES = ("instrumental", "accompaniment", "no_vocals")
"""File names of a complete instrumental; if there is one, the other stems are ignored."""

# The usual validation split of MUSDB18: fourteen songs of its training set.
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
    """Files at 44.1 kHz whose sum is one stem."""

    files: tuple[Path, ...]

    @cached_property
    def seconds(self) -> float:
        """Length of the longest file, in seconds."""
        frames = 0
        for path in self.files:
            with _open_audio(path) as file:
                frames = max(frames, file.frames)
        return frames / SAMPLE_RATE

    def read(self, start: int = 0, samples: int = -1) -> Audio:
        """Reads the sum of the files from sample ``start``: (2, samples), zeros after their end.

        Raises:
            AudioError: a file cannot be read or is not at 44.1 kHz.
        """
        length = round(self.seconds * SAMPLE_RATE) - start if samples < 0 else samples
        out = np.zeros((2, length), np.float32)
        for path in self.files:
            with _open_audio(path) as file:
                file.seek(min(start, file.frames))
                block = file.read(length, dtype="float32", always_2d=True).T
                out[:, : block.shape[1]] += block[:2]
        return out


@dataclass(frozen=True)
class LabelledSong:
    """A song whose vocals are those of a teacher."""

    mixture: Track
    vocals: Track
    weight: Track
    """1 where the teacher is sure, 0 elsewhere."""


@dataclass(frozen=True)
class Pools:
    """The tracks from which training draws."""

    vocals: tuple[Track, ...]
    instruments: tuple[tuple[Track, ...], ...]
    """One pool per instrument (drums, bass and other), or a single pool of complete music."""
    has_own_levels: bool
    """Whether the stems belong to songs and keep their levels in the mix."""
    singers: tuple[Track, ...] = ()
    """Voices that a teacher separated from songs."""
    songs: tuple[LabelledSong, ...] = ()


@dataclass(frozen=True)
class Song:
    """A mixture and its two stems."""

    name: str
    mixture: Track
    vocals: Track
    instrumental: Track | None
    """None means the mixture minus the vocals."""

    def stems(self) -> tuple[Audio, Audio, Audio]:
        """Reads mixture, vocals and instrumental, each (2, samples).

        Raises:
            AudioError: a file cannot be read, or a stem differs in length from the mixture.
        """
        for track in (self.vocals, self.instrumental):
            if track and abs(track.seconds - self.mixture.seconds) > 0.1:
                raise AudioError(
                    f"{track.files[0]} must be as long as its mixture, {self.mixture.seconds:.1f} "
                    f"s; got {track.seconds:.1f} s: export it again at full length"
                )
        mixture = self.mixture.read()
        vocals = self.vocals.read(0, mixture.shape[1])
        if self.instrumental is None:
            return mixture, vocals, mixture - vocals
        return mixture, vocals, self.instrumental.read(0, mixture.shape[1])


def training_pools(dataset: Path) -> Pools:
    """Finds the stems in ``dataset/train``.

    Raises:
        AudioError: there are no vocals or no other stems.
    """
    train = dataset / "train"
    vocals = tuple(Track((path,)) for path in _audio_files(train / "vocals"))
    if vocals:
        music = tuple(Track((path,)) for path in _audio_files(train / "instrumental"))
        pools = Pools(
            vocals,
            (music,) if music else (),
            has_own_levels=False,
            singers=tuple(Track((path,)) for path in _audio_files(train / "singers")),
            songs=tuple(_labelled_songs(train / "songs")),
        )
    else:
        train_songs = training_songs(dataset)
        instruments: dict[str, list[Track]] = {}
        for song in train_songs:
            for path in song.instrumental.files if song.instrumental else ():
                instruments.setdefault(path.stem, []).append(Track((path,)))
        pools = Pools(
            tuple(song.vocals for song in train_songs),
            tuple(tuple(tracks) for tracks in instruments.values()),
            has_own_levels=True,
        )
    if not pools.vocals or not pools.instruments:
        raise AudioError(
            "dataset must contain train/SONG/vocals.wav with other stems, as in MUSDB18-HQ, or "
            f"train/vocals/*.wav and train/instrumental/*.wav; got {dataset} without them: build "
            "one with bsmamba2 dataset"
        )
    return pools


def _labelled_songs(folder: Path) -> Iterator[LabelledSong]:
    for path in sorted(folder.glob("*")):
        files = {file.stem: Track((file,)) for file in _audio_files(path)}
        if {"mixture", "vocals", "weight"} <= files.keys():
            yield LabelledSong(files["mixture"], files["vocals"], files["weight"])


def training_songs(dataset: Path) -> list[Song]:
    """Returns the songs in ``dataset/train``, without MUSDB18's validation songs."""
    return [song for song in _find_songs(dataset / "train") if song.name not in MUSDB_VALIDATION]


def songs(dataset: Path, split: str) -> tuple[Song, ...]:
    """Returns the songs of a split.

    They are in ``dataset/split``. If there are none, ``test`` means the songs in ``dataset``.
    MUSDB18-HQ has no folder for validation; its validation songs are fourteen of ``train``.

    Raises:
        AudioError: there are no songs.
    """
    selected = _find_songs(dataset / split)
    if not selected and split == "valid":
        train = _find_songs(dataset / "train")
        selected = [song for song in train if song.name in MUSDB_VALIDATION]
    if not selected and split == "test":
        selected = _find_songs(dataset)
    if not selected:
        raise AudioError(
            f"dataset must contain {split}/SONG/mixture.wav and {split}/SONG/vocals.wav; got "
            f"{dataset} without them: check its path and the name of the split"
        )
    return tuple(selected)


def validation_songs(dataset: Path) -> tuple[Song, ...]:
    """Returns the songs that score a run: those of held-out singers, if there are any.

    Raises:
        AudioError: there are no validation songs.
    """
    singers = _find_songs(dataset / "singers")
    return tuple(singers) or songs(dataset, "valid")


def _find_songs(folder: Path) -> list[Song]:
    songs = []
    for path in sorted(folder.glob("*")):
        stems = {file.stem: file for file in _audio_files(path)} if path.is_dir() else {}
        if "vocals" not in stems or not ("mixture" in stems or len(stems) > 1):
            continue
        vocals, mixture = stems.pop("vocals"), stems.pop("mixture", None)
        complete = [stems[name] for name in INSTRUMENTAL_NAMES if name in stems]
        rest = tuple(complete[:1] or stems.values())
        mixture_files = (mixture,) if mixture else (vocals, *rest)
        instrumental = Track(rest) if rest else None
        songs.append(Song(path.name, Track(mixture_files), Track((vocals,)), instrumental))
    return songs


@contextmanager
def _open_audio(path: Path) -> Iterator[soundfile.SoundFile]:
    """Opens an audio file and checks that it is at 44.1 kHz."""
    try:
        with soundfile.SoundFile(path) as file:
            if file.samplerate != SAMPLE_RATE:
                raise AudioError(
                    f"{path} must be at {SAMPLE_RATE} Hz; got {file.samplerate} Hz: resample it"
                )
            yield file
    except soundfile.LibsndfileError as error:
        raise AudioError(f"{path} cannot be read: {printable(str(error))}") from None


def _audio_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.suffix in SUFFIXES)
