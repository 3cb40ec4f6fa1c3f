"""The free data set: packages in, a folder of stems out. :func:`build` is the whole recipe.

    SET/SOURCES.md                                  packages, licences, their copyright files
    SET/amounts.json                                how much it was made with
    SET/train/vocals/PACKAGE-SPEAKER-spoken.wav     every usable word of a speaker, one long line
    SET/train/vocals/PACKAGE-SPEAKER-sung.wav       the same, sung
    SET/train/vocals/PACKAGE-SPEAKER-held.wav       some of it, sung slowly and in full voice
    SET/train/instrumental/PACKAGE-TRACK.wav
    SET/valid/NAME/{mixture,vocals,instrumental}.wav    fixed songs, see :mod:`songs`
    SET/test/NAME/{mixture,vocals,instrumental}.wav

Each file is made by itself from a seed of its own, so the parts can be made at once, in any order,
and a recipe that was stopped goes on where it was.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from bsmamba2.audio.array import Audio
from bsmamba2.errors import AudioError
from bsmamba2_training import songs
from bsmamba2_training.run import replacing
from bsmamba2_training.singing import Style, sing
from bsmamba2_training.sources import (
    PACKAGES,
    Package,
    Split,
    attributions,
    copyright_of,
    fetch,
    matching,
)
from bsmamba2_training.voices import SAMPLE_RATE, clean, join, read_mono, read_stereo

Progress = Callable[[str, int, int], None]
"""Called with what was made, how many files are done, and how many there will be."""

SOURCES, AMOUNTS = "SOURCES.md", "amounts.json"
BEFORE_HELD: dict[str, Any] = {"held_minutes": 0.0}
"""Of a data set from before there were long notes, which keeps no such amount."""
PHRASE_S = 9.0
"""Words that are sung in one style, seconds."""


@dataclass(frozen=True)
class Amounts:
    """How much of everything is made.

    Raises:
        AudioError: an amount is negative.
    """

    sung_minutes: float = 60.0
    """Of speech turned into singing, at most, for each speaker; 30 s of a core a minute."""
    held_minutes: float = 4.0
    """The same, in long notes, which last four times as long."""
    valid_songs: int = 12
    test_songs: int = 24

    def __post_init__(self) -> None:
        for name, amount in dataclasses.asdict(self).items():
            if not amount >= 0:
                raise AudioError(f"{name} must be at least 0, for none; got {amount!r}")


def build(
    folder: Path, work: Path, amounts: Amounts, jobs: int = 1, progress: Progress | None = None
) -> None:
    """Makes the data set in ``folder``, from packages kept in ``work``.

    Args:
        jobs: processes that work at once; their number changes nothing in the result.

    Raises:
        AudioError: a package cannot be had, or is another than was expected; or the data set was
            made with other amounts.
    """
    _agree(amounts, folder)
    unpacked = {package.name: fetch(package, work) for package in PACKAGES}
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / AMOUNTS) as path:
        path.write_text(json.dumps(dataclasses.asdict(amounts), indent=1))
    text = attributions(lambda package: copyright_of(package, unpacked[package.name]))
    with replacing(folder / SOURCES) as path:
        path.write_text(f"# What this audio is made from\n\n{text}", encoding="utf-8")
    tasks = list(_tasks(folder, unpacked, amounts))
    pool = ProcessPoolExecutor(jobs)
    try:
        running = {pool.submit(_make, task, unpacked): task for task in tasks}
        for done, future in enumerate(as_completed(running), start=1):
            future.result()
            if progress:
                progress(str(running[future].target.relative_to(folder)), done, len(tasks))
    finally:
        pool.shutdown(cancel_futures=True)  # after an error, nothing more is begun


def _agree(amounts: Amounts, folder: Path) -> None:
    """Files that are there are not made again, so other amounts would leave a mixture of both."""
    path = folder / AMOUNTS
    kept = amounts
    if path.exists():
        try:
            kept = Amounts(**(BEFORE_HELD | json.loads(path.read_text())))
        except (ValueError, TypeError, AudioError) as error:
            raise AudioError(f"{path} is damaged: {error}; name another folder") from None
    elif (folder / SOURCES).exists():  # from before amounts were kept: all had the defaults
        kept = Amounts(**BEFORE_HELD)
    for name, amount in dataclasses.asdict(amounts).items():
        if amount != (before := getattr(kept, name)):
            raise AudioError(
                f"{name} must be {before:g}, with which {folder} was made; got {amount:g}: "
                "name another folder for another data set"
            )


@dataclass(frozen=True)
class _Task:
    """One file, or one song of three files, to make."""

    kind: str
    target: Path
    package: Package | None = None
    speaker: str = ""
    sources: tuple[Path, ...] = ()
    minutes: float = 0.0
    split: Split = "train"
    number: int = 0

    @property
    def seed(self) -> int:
        """Of what is drawn for it; the same wherever the data set lies."""
        within = self.target.parts[-2:] if self.kind == "song" else self.target.parts[-3:]
        return zlib.crc32("/".join(("set", *within)[-3:]).encode())


def _tasks(folder: Path, unpacked: dict[str, Path], amounts: Amounts) -> Iterator[_Task]:
    for split, count in (("valid", amounts.valid_songs), ("test", amounts.test_songs)):
        for number in range(count):
            target = folder / split / f"{number:02d}"
            yield _Task("song", target, split=split, number=number)  # type: ignore[arg-type]
    for package in PACKAGES:
        if package.split != "train":
            continue
        files = list(matching(package, unpacked[package.name]))
        if package.kind == "music":
            for name, path in files:
                stem = f"{package.name}-{name}".replace(" ", "-")
                target = folder / "train" / "instrumental" / f"{stem}.wav"
                yield _Task("music", target, package, sources=(path,))
            continue
        for speaker in sorted({name for name, _ in files}):
            paths = tuple(path for name, path in files if name == speaker)
            most = {"spoken": 1e9, "sung": amounts.sung_minutes, "held": amounts.held_minutes}
            for kind, minutes in most.items():
                target = folder / "train" / "vocals" / f"{package.name}-{speaker}-{kind}.wav"
                yield _Task(kind, target, package, speaker, paths, minutes)


def _make(task: _Task, unpacked: dict[str, Path]) -> None:
    """Makes what a task says, unless it is there or comes out empty; it appears only whole."""
    if task.target.exists():
        return
    rng = np.random.default_rng(task.seed)
    if task.kind == "song":
        songs.write(songs.compose(_cast(task, unpacked), rng), task.target)
        return
    if task.kind == "music":
        audio = read_stereo(task.sources[0])
        audio = audio / max(1.0, float(np.abs(audio).max()) / 0.98)
    elif task.kind == "spoken":
        audio = join(list(utterances(task.sources, rng, task.minutes)), rng)[np.newaxis]
    else:
        drawn = Style.drawn_held if task.kind == "held" else Style.drawn
        audio = _line(sung(task.sources, rng, task.minutes, drawn))[np.newaxis]
    if not audio.size:  # a speaker with nothing usable, or too little for a phrase
        return
    task.target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(task.target) as unfinished:
        soundfile.write(unfinished, audio.T, SAMPLE_RATE, "PCM_16", format="WAV")


def utterances(
    paths: tuple[Path, ...], rng: np.random.Generator, minutes: float = 1e9
) -> Iterator[Audio]:
    """The usable recordings among ``paths`` in random order, each once, up to so many minutes."""
    seen: set[bytes] = set()
    left = minutes * 60 * SAMPLE_RATE
    for number in rng.permutation(len(paths)):
        digest = hashlib.sha256(paths[number].read_bytes()).digest()
        if left <= 0 or digest in seen:
            continue
        seen.add(digest)
        try:
            utterance = clean(read_mono(paths[number]))
        except soundfile.LibsndfileError:
            continue
        if utterance is not None:
            left -= len(utterance)
            yield utterance


def sung(
    paths: tuple[Path, ...],
    rng: np.random.Generator,
    minutes: float,
    drawn: Callable[[np.random.Generator], Style],
) -> Iterator[Audio]:
    """Phrases of some nine seconds of speech, each sung in a style of its own."""
    phrase: list[Audio] = []
    for utterance in utterances(paths, rng, minutes):
        phrase.append(utterance)
        if sum(map(len, phrase)) >= PHRASE_S * SAMPLE_RATE:
            song = sing(join(phrase, rng), rng, drawn(rng))
            phrase = []
            if song is not None:
                yield song


def _line(phrases: Iterator[Audio]) -> Audio:
    return np.concatenate([np.zeros(0, np.float32), *phrases])


def _cast(task: _Task, unpacked: dict[str, Path]) -> songs.Cast:
    """The speaker and the track of a song: both go round, so that each comes as often."""
    voices: dict[str, list[Path]] = {}
    tracks: dict[str, list[Path]] = {}
    for package in PACKAGES:
        if package.split != task.split:
            continue
        pool = voices if package.kind == "voice" else tracks
        for name, path in matching(package, unpacked[package.name]):
            pool.setdefault(f"{package.name}-{name}", []).append(path)
    if not voices or not tracks:
        raise AudioError(f"the packages of the split {task.split} hold no voices or no music")
    speaker = sorted(voices)[task.number % len(voices)]
    # A stride that shares no factor with the number of tracks visits them all.
    names = sorted(tracks)
    stride = next(step for step in (7, 5, 3, 2, 1) if np.gcd(step, len(names)) == 1)
    track = names[task.number * stride % len(names)]
    is_sung = task.number % 10 < 7

    def voice(rng: np.random.Generator, seconds: float, key: int) -> Audio:
        paths, minutes = tuple(voices[speaker]), seconds / 60
        if is_sung:
            return _line(sung(paths, rng, minutes, partial(Style.drawn, key=key)))
        return join(list(utterances(paths, rng, minutes)), rng)

    return songs.Cast(tuple(tracks[track]), voice)
