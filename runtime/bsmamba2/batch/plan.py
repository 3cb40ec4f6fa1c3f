"""Plans: which files a separation will write, known before it starts."""

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
"""Suffixes of the files in a folder that count as songs."""


@dataclass(frozen=True)
class FilePlan:
    """A song, and the files that its stems will be written to."""

    song: Path
    directory: Path
    """Folder of the stems; a template may add subfolders."""
    seconds: float
    """Length of the song, as its header states it."""
    overlap: float
    clip: Clip
    encoding: Encoding
    """Encoding of the files; a stem that exceeds full scale may become 32-bit float instead."""
    names: tuple[str | None, ...]
    """The file of each output of the model, relative to the directory and without a suffix; None if
    the output is not written."""
    outputs: dict[str, Path]
    """The path of each stem that is written."""
    record: Record


@dataclass(frozen=True)
class OutputOptions:
    """The options that all songs share; the fields are those of ``Separator.separate_file``.

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

    def selected_stems(self, model: Manifest) -> tuple[str, ...]:
        """Returns the stems to write.

        Raises:
            ModelError: the model has no such stem.
            AudioError: the template gives several of them the same name.
        """
        selected = wanted_stems(self.stems, model.available, model.outputs)
        Template(self.template).require_stems(len(selected))
        return selected

    def plan(self, song: Path, directory: Path | None, model: Manifest) -> FilePlan:
        """Plans one song from its header.

        Raises:
            AudioError: the song cannot be opened, or the container does not support the subtype.
            ModelError: the model has no such stem.
        """
        selected, template = self.selected_stems(model), Template(self.template)
        with SongFile(song) as opened:
            encoding = choose(opened.encoding, self.format, self.subtype)
            encoding = encoding.for_length(opened.samples, opened.channels)
            seconds = opened.samples / opened.sample_rate
        folder = song.parent if directory is None else directory
        names = {stem: template.base(song.stem, stem, model.name) for stem in selected}
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
            tuple(names.get(stem) for stem in model.available),
            {stem: folder / (name + encoding.suffix) for stem, name in names.items()},
            Record(song, folder, model, options),
        )


def find_songs(
    paths: Iterable[Path], directory: Path | None
) -> Iterator[tuple[Path, Path | None, bool]]:
    """Yields each song, the folder for its stems (None: the song's), and whether a path names it.

    A folder stands for all songs in it and in its subfolders, sorted by name, without hidden ones.
    The folder for stems gets the same subfolders.

    Raises:
        AudioError: a folder cannot be read, or contains no song.
    """
    for path in paths:
        with audio_errors(f"{path} cannot be opened", "check its name"):
            is_folder = path.is_dir()  # a missing path gives False, an invalid one an error
        if not is_folder:
            yield path, directory, True
            continue
        songs = list(_walk(path))
        if not songs:
            raise AudioError(
                f"the folder {path} contains no songs: choose one with files in "
                f"{', '.join(sorted(SUFFIXES))}"
            )
        for song in songs:
            inside = song.parent.relative_to(path)
            yield song, None if directory is None else directory / inside, False


def without_own_outputs(plans: Sequence[FilePlan], named: Iterable[Path]) -> list[FilePlan]:
    """Returns the plans, except those for songs in a folder that are stems of another plan."""
    written = {base for plan in plans for base in _bases(plan)}
    kept = {path.absolute() for path in named}
    return [
        plan
        for plan in plans
        if plan.song.absolute() in kept or plan.song.with_suffix("").absolute() not in written
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
