"""Plans: which files a separation will write, known before it starts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from bsmamba2.batch.record import ENDING, Record, recorded_stems
from bsmamba2.devices.products import DEFAULT_SPEED
from bsmamba2.errors import AudioError
from bsmamba2.files.encoding import (
    Clip,
    Encoding,
    choose,
    require_clip,
    require_format,
    require_support,
)
from bsmamba2.files.excerpt import WHOLE, Excerpt
from bsmamba2.files.naming import DEFAULT_TEMPLATE, Template, require_lengths
from bsmamba2.files.song_file import SongFile, audio_errors
from bsmamba2.files.tags import read_tags
from bsmamba2.files.wav_reader import STDIN, WavReader, standard_input
from bsmamba2.files.wav_writer import require_subtype
from bsmamba2.formats.stem_names import wanted_stems
from bsmamba2.pipeline.mix import MIX, Mix
from bsmamba2.pipeline.overlap_add import require_overlap
from bsmamba2.report.song_report import SIZE_MB, require_size

if TYPE_CHECKING:
    from bsmamba2.formats.manifest import Manifest

_SUFFIXES = """
.aac .aif .aifc .aiff .ape .au .caf .dsf .flac .m4a .m4b .mka .mp3 .mp4 .oga .ogg .opus .rf64 .spx
.tta .w64 .wav .wave .webm .wma .wv
"""
Failed: TypeAlias = Callable[[Path, AudioError], object]

SUFFIXES = frozenset(_SUFFIXES.split())
"""Suffixes of the files in a folder that count as songs."""


@dataclass(frozen=True)
class FilePlan:
    """A song, and the files that its stems will be written to."""

    song: Path
    directory: Path
    """Folder of the stems; a template may add subfolders."""
    seconds: float
    """Length of the song, as its header states it; 0 if it states none."""
    overlap: float | None
    """Overlap of chunks; None: each model's own."""
    clip: Clip
    encoding: Encoding
    """Encoding of the files; a stem that exceeds full scale may become 32-bit float instead."""
    stems: tuple[str, ...]
    """The outputs of the model; of a mix, ``mix`` alone."""
    names: tuple[str | None, ...]
    """The file of each of them, relative to the directory and without a suffix; None if it is not
    written."""
    outputs: dict[str, Path]
    """The path of each stem that is written."""
    record: Record
    excerpt: Excerpt = WHOLE
    label: str = ""
    """What the names of the excerpt's files end with; empty for the whole song."""
    weights: tuple[float, ...] | None = None
    """The factor of each output of the model in a mix; None for stems."""
    piped: WavReader | None = None
    """The song, if it is on standard input."""
    to_stdout: bool = False
    """Whether the only stem is written to standard output."""
    report: Path | None = None
    """The page about the separation, if one is wanted."""
    report_mb: float = SIZE_MB
    """What the page may have, in millions of bytes."""

    @property
    def lacks_report(self) -> bool:
        """Whether a page is wanted and does not exist."""
        return self.report is not None and not self.report.exists()

    def open(self) -> SongFile | WavReader:
        """Opens the song.

        Raises:
            AudioError, MissingExtra: see :class:`~bsmamba2.files.song_file.SongFile`.
        """
        return self.piped or SongFile(self.song, self.excerpt)


@dataclass(frozen=True)
class OutputOptions:
    """The options that all songs share: those of ``Separator.separate_file``, speed and precision.

    Raises:
        AudioError: overlap, format, clip or template is out of range, or a mix has stems.
    """

    stems: tuple[str, ...] | None = None
    overlap: float | None = None
    format: str | None = None
    subtype: str | None = None
    clip: Clip = "float"
    template: str = DEFAULT_TEMPLATE
    bitrate: float | None = None
    speed: str = DEFAULT_SPEED
    precision: str = "fp32"
    """Speed and precision are the Separator's: they change the stems' bytes."""
    report: bool = False
    """Whether to write a page about each song, named like a stem called ``report``."""
    report_mb: float = SIZE_MB
    """What a page may have, in millions of bytes."""
    excerpt: Excerpt = WHOLE
    mix: Mix | None = None
    """The gains of the one file that is written instead of the stems."""
    suffix: str | None = None
    """The suffix of the only file, which the template names exactly."""
    to_stdout: bool = False
    """Whether the only stem is written to standard output, as 32-bit float unless asked."""

    def __post_init__(self) -> None:
        if self.overlap is not None:
            require_overlap(self.overlap)
        require_format(self.format)
        require_clip(self.clip)
        Template(self.template)
        require_size(self.report_mb)
        if self.mix and self.stems is not None:
            raise AudioError("stems must be None with a mix, which lists the stems that it has")
        if self.to_stdout and self.format and self.format.lower() != "wav":
            raise AudioError(f"format must be wav on standard output; got {self.format}")
        if self.to_stdout and self.subtype:
            require_subtype(self.subtype)
        if self.to_stdout and self.report:
            raise AudioError("report must be off on standard output, which takes one file")

    def selected_stems(self, model: Manifest) -> tuple[str, ...]:
        """Returns the stems to write; for a mix, ``mix`` alone.

        Raises:
            ModelError: the model has no such stem.
            AudioError: the template gives several of them the same name, or there are several for
                standard output.
        """
        if self.mix:
            self.mix.resolve(model.available)
            return (MIX,)
        selected = wanted_stems(self.stems, model.available, model.outputs)
        if self.to_stdout and len(selected) > 1:
            raise AudioError(
                f"standard output takes one stem or a mix; got {', '.join(selected)}: choose one"
            )
        Template(self.template).require_stems(len(selected))
        return selected

    def plan(self, song: Path, directory: Path | None, model: Manifest) -> FilePlan:
        """Plans one song from its header.

        Raises:
            AudioError: the song cannot be opened, or the container does not support the subtype.
            ModelError: the model has no such stem.
        """
        selected, template = self.selected_stems(model), Template(self.template)
        piped = standard_input(self.excerpt) if song == STDIN else None
        with piped or SongFile(song, self.excerpt) as opened:
            encoding = self._encoding(opened)
            seconds, label = opened.samples / opened.sample_rate, opened.label
        folder = song.parent if directory is None else directory
        if piped and directory is None:
            folder = Path()
        tags = read_tags(song).fields if template.has_tags and not piped else {}
        # An excerpt never has the name of the whole song; only a name that was given is kept.
        ending = "" if self.suffix else label
        names = {
            stem: template.base(song.name, stem, model.name, tags) + ending for stem in selected
        }
        page = template.base(song.name, "report", model.name, tags) + ending + ".html"
        longest = max(encoding.suffix, encoding.as_float().suffix, ".wav", key=len)
        for name in names.values():
            require_lengths(folder / (name + longest))
        if self.report:
            require_lengths(folder / page)
        stems = model.available if self.mix is None else (MIX,)
        return FilePlan(
            song,
            folder,
            seconds,
            self.overlap,
            self.clip,
            encoding,
            stems,
            tuple(names.get(stem) for stem in stems),
            {} if self.to_stdout else {s: folder / (n + encoding.suffix) for s, n in names.items()},
            self._record(song, folder, model, encoding, names, label),
            excerpt=self.excerpt,
            label=label,
            weights=self.mix.weights(model.available) if self.mix else None,
            piped=piped,
            to_stdout=self.to_stdout,
            report=folder / page if self.report else None,
            report_mb=self.report_mb,
        )

    def _record(
        self,
        song: Path,
        folder: Path,
        model: Manifest,
        encoding: Encoding,
        names: Mapping[str, str],
        label: str,
    ) -> Record:
        options: dict[str, object] = {
            "overlap": model.overlap if self.overlap is None else self.overlap,
            "format": encoding.format,
            "subtype": encoding.subtype,
            "clip": self.clip,
            "files": names,
            # Absent by default, as in records of earlier versions.
            **({} if self.bitrate is None else {"bitrate": self.bitrate}),
            **({"speed": self.speed} if self.speed != DEFAULT_SPEED else {}),
            **({"precision": self.precision} if self.precision != "fp32" else {}),
        }
        if not self.excerpt.is_whole:
            options["excerpt"] = [self.excerpt.start_s, self.excerpt.duration_s]
        if self.mix:
            options["mix"] = self.mix.resolve(model.available)
        return Record(song, folder, model, options, label + (f"_{MIX}" if self.mix else ""))

    def _encoding(self, song: SongFile | WavReader) -> Encoding:
        """Chooses the encoding of a song's stems, WAV where nothing was asked and FLAC cannot."""
        if self.to_stdout:
            return Encoding("WAV", (self.subtype or "FLOAT").upper(), ".wav")
        chosen = choose(song.encoding, self.format, self.subtype, self.bitrate)
        if self.suffix:
            chosen = replace(chosen, suffix=self.suffix)
        try:
            require_support(chosen, song.sample_rate, song.channels)
        except AudioError as error:
            if self.format or self.subtype:
                raise AudioError(f"{song.path}: {error}") from None
            chosen = choose(None, "wav", None)
        return chosen.for_length(song.samples, song.channels)


def find_songs(
    paths: Iterable[Path], directory: Path | None, failed: Failed | None = None
) -> Iterator[tuple[Path, Path | None, bool]]:
    """Yields each song, the folder for its stems (None: the song's), and whether a path names it.

    A folder stands for all songs in it and in its subfolders, sorted by name, without hidden ones
    and without the stems that records in these folders list. The folder for stems gets the same
    subfolders.

    Args:
        paths: songs and folders.
        directory: folder for the stems.
        failed: receives a subfolder that cannot be read and the error. Default: it is raised.

    Raises:
        AudioError: a folder cannot be read, or contains no song.
    """
    for path in paths:
        with audio_errors(f"{path} cannot be opened", "check its name"):
            is_folder = path.is_dir()  # a missing path gives False, an invalid one an error
        if not is_folder:
            yield path, directory, True
            continue
        failures: list[Path] = []
        songs = list(_walk(path, _Walk(set(), failures, failed)))
        if not songs and not failures:
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
    kept = {resolved(path) for path in named}
    return [
        plan
        for plan in plans
        if resolved(plan.song) in kept or resolved(plan.song).with_suffix("") not in written
    ]


def resolved(path: Path) -> Path:
    """Returns the one spelling of a path: its real folder and its own name, be it a link's."""
    return Path(os.path.realpath(path.parent), path.name)


def _bases(plan: FilePlan) -> Iterator[Path]:
    own = resolved(plan.song).with_suffix("")
    for name in plan.names:
        if name is not None and (base := resolved(plan.directory / name)) != own:
            yield base


@dataclass(frozen=True)
class _Walk:
    """What a walk through folders has found so far."""

    stems: set[Path]
    """Stems of earlier runs."""
    failures: list[Path]
    """Folders that cannot be read."""
    failed: Failed | None


def _walk(folder: Path, walk: _Walk) -> Iterator[Path]:
    try:
        with audio_errors(f"the folder {folder} cannot be read", "check its permissions"):
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except AudioError as error:
        if walk.failed is None:
            raise
        walk.failures.append(folder)
        walk.failed(folder, error)
        return
    for entry in entries:
        if entry.name.startswith(".") and entry.name.endswith(ENDING):
            walk.stems.update(recorded_stems(folder / entry.name))
    for entry in entries:
        if entry.name.startswith("."):
            continue
        path = folder / entry.name
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(path, walk)
        elif path.suffix.lower() in SUFFIXES and path not in walk.stems and not _is_folder(path):
            yield path


def _is_folder(path: Path) -> bool:
    """Whether a link leads to a folder; these are not followed."""
    try:
        return path.is_dir()
    except OSError:
        return False
