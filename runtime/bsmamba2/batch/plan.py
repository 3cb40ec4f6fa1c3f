"""What a separation of files will make, known before it starts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bsmamba2.batch.record import Record
from bsmamba2.errors import AudioError
from bsmamba2.files.encoding import Clip, choose, require_clip, require_format
from bsmamba2.files.naming import DEFAULT_TEMPLATE, Template
from bsmamba2.files.song_file import SongFile, audio_errors
from bsmamba2.formats.stem_names import wanted_stems
from bsmamba2.pipeline.overlap_add import require_overlap

if TYPE_CHECKING:
    from bsmamba2.files.encoding import Encoding
    from bsmamba2.formats.manifest import Manifest

_SUFFIXES = """
.aac .aif .aifc .aiff .au .caf .flac .m4a .mka .mp3 .mp4 .oga .ogg .opus .rf64 .w64 .wav .wave
.webm .wma
"""
SUFFIXES = frozenset(_SUFFIXES.split())
"""What is taken for a song in a folder."""


@dataclass(frozen=True)
class FilePlan:
    """A song, and the files that its stems become."""

    song: Path
    directory: Path
    """Of the stems; templates may make folders in it."""
    seconds: float
    """The length of the song, as its header states it."""
    overlap: float
    clip: Clip
    encoding: Encoding
    """Of the files; one that leaves full scale may become 32-bit float."""
    names: tuple[str | None, ...]
    """For each output of the model where it goes, below the directory and without a suffix."""
    outputs: dict[str, Path]
    """The files by stem."""
    record: Record


@dataclass(frozen=True)
class OutputOptions:
    """What is asked of all songs alike; the fields are those of ``Separator.separate_file``.

    Raises:
        AudioError: overlap, format, clip or template is out of range.
    """

    stems: tuple[str, ...] | None = None
    overlap: float | None = None
    format: str | None = None
    subtype: str | None = None
    clip: Clip = "float"
    template: str = DEFAULT_TEMPLATE

    def __post_init__(self) -> None:
        if self.overlap is not None:
            require_overlap(self.overlap)
        require_format(self.format)
        require_clip(self.clip)
        Template(self.template)

    def wanted(self, model: Manifest) -> tuple[str, ...]:
        """The stems that are to be written of the model's.

        Raises:
            ModelError: the model has no such stem.
            AudioError: the template gives several of them one name.
        """
        wanted = wanted_stems(self.stems, model.outputs)
        Template(self.template).require_stems(len(wanted))
        return wanted

    def plan(self, song: Path, directory: Path | None, model: Manifest) -> FilePlan:
        """One song's plan, from its header.

        Raises:
            AudioError: the song cannot be opened, or has no such subtype.
            ModelError: the model has no such stem.
        """
        wanted, template = self.wanted(model), Template(self.template)
        with SongFile(song) as opened:
            encoding = choose(opened.encoding, self.format, self.subtype)
            encoding = encoding.for_length(opened.samples, opened.channels)
            seconds = opened.samples / opened.sample_rate
        folder = song.parent if directory is None else directory
        names = {stem: template.base(song.stem, stem, model.name) for stem in wanted}
        overlap = model.overlap if self.overlap is None else self.overlap
        options = {
            "overlap": overlap,
            "format": encoding.format,
            "subtype": encoding.subtype,
            "clip": self.clip,
            "files": names,
        }
        return FilePlan(
            song,
            folder,
            seconds,
            overlap,
            self.clip,
            encoding,
            tuple(names.get(stem) for stem in model.outputs),
            {stem: folder / (name + encoding.suffix) for stem, name in names.items()},
            Record(song, folder, model, options),
        )


def find_songs(
    paths: Iterable[Path], directory: Path | None
) -> Iterator[tuple[Path, Path | None, bool]]:
    """Each song that is meant, the folder for its stems (None: its own), and whether it was named.

    A folder means every song in it and in its folders, in the order of their names, hidden ones
    left out; where there is a folder for stems, the same folders are made in it.

    Raises:
        AudioError: a folder that cannot be read, or has no song.
    """
    for path in paths:
        with audio_errors(f"{path} cannot be opened", "check its name"):
            is_folder = path.is_dir()  # no error where nothing is, but where none can be
        if not is_folder:
            yield path, directory, True
            continue
        songs = list(_walk(path))
        if not songs:
            raise AudioError(
                f"the folder {path} has no songs: give a folder of {', '.join(sorted(SUFFIXES))}"
            )
        for song in songs:
            inside = song.parent.relative_to(path)
            yield song, None if directory is None else directory / inside, False


def without_own_outputs(plans: Sequence[FilePlan], named: Iterable[Path]) -> list[FilePlan]:
    """The plans less those of songs found in a folder that are the stems of another plan."""
    made = {base for plan in plans for base in _bases(plan)}
    kept = {path.absolute() for path in named}
    return [
        plan
        for plan in plans
        if plan.song.absolute() in kept or plan.song.with_suffix("").absolute() not in made
    ]


def _bases(plan: FilePlan) -> Iterator[Path]:
    own = plan.song.with_suffix("").absolute()
    for name in plan.names:
        if name is not None and (base := (plan.directory / name).absolute()) != own:
            yield base


def _walk(folder: Path) -> Iterator[Path]:
    with audio_errors(f"the folder {folder} cannot be read", "check its permissions"):
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    for entry in entries:
        if entry.name.startswith("."):
            continue
        path = folder / entry.name
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(path)
        elif path.suffix.lower() in SUFFIXES and entry.is_file():
            yield path
