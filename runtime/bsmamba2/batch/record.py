"""What a song's stems were made of: a small JSON beside them, so that a batch can be resumed.

    .song.flac.bsmamba2.json  {"song": …, "model": …, "options": …, "outputs": …}

It is written when all stems are whole on the disk, just before they get their names. So where it
stands and fits, its outputs are this run's own work: all there, or left to be made again by a run
that was killed between two names.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bsmamba2.errors import AudioError
from bsmamba2.files.part_file import write_atomically
from bsmamba2.files.song_file import audio_errors

if TYPE_CHECKING:
    from bsmamba2.formats.manifest import Manifest

FORMAT = 1
MAX_BYTES = 1 << 16


@dataclass(frozen=True)
class RecordedStems:
    """What a run has made of a song, or was about to."""

    outputs: Mapping[str, Path]
    all_there: bool
    """False where the run was killed before all had their names."""


@dataclass(frozen=True)
class Record:
    """One song and what is asked of it.

    Args:
        song: the file.
        directory: of the stems, and of the record.
        model: what the model is.
        options: all that changes the stems' bytes or names.
    """

    song: Path
    directory: Path
    model: Manifest
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        return self.directory / f".{self.song.name}.bsmamba2.json"

    def found(self) -> RecordedStems | None:
        """The stems that the record on the disk lists, if it is of this song, model and options.

        None as well where one of them has become another file since.
        """
        found = self._read()
        if found is None or any(found.get(k) != v for k, v in self._asked().items()):
            return None
        try:
            if not self._is_same_song(found["song"]):
                return None
            outputs = {str(s): self._place(out["file"]) for s, out in found["outputs"].items()}
            sizes = {str(s): out["bytes"] for s, out in found["outputs"].items()}
        except (KeyError, TypeError, AttributeError, ValueError):
            return None
        there = {stem for stem, path in outputs.items() if os.path.lexists(path)}
        if any(outputs[stem].lstat().st_size != sizes[stem] for stem in there):
            return None
        return RecordedStems(outputs, all_there=len(there) == len(outputs) > 0)

    def write(self, sizes: Mapping[str, tuple[Path, int]]) -> None:
        """Keeps that these stems, with their lengths in bytes, are this song's.

        Raises:
            AudioError: the folder does not take it.
        """
        outputs = {
            stem: {"file": path.relative_to(self.directory).as_posix(), "bytes": size}
            for stem, (path, size) in sizes.items()
        }
        content = {**self._asked(), "song": self._song(), "outputs": outputs}
        text = json.dumps(content, indent=1)
        with audio_errors(f"{self.path} cannot be written", "give another directory (-o)"):
            write_atomically(self.path, text.encode("ascii"))

    def _asked(self) -> dict[str, Any]:
        # A checkpoint's check may be made later, and its hash tells what it is without.
        known = self.model.checkpoint_sha256 is not None
        manifest = self.model.replace(check=None) if known else self.model
        about = hashlib.sha256(manifest.to_json().encode()).hexdigest()
        model = {"name": self.model.name, "manifest_sha256": about}
        return {"bsmamba2": FORMAT, "model": model, "options": dict(self.options)}

    def _song(self) -> dict[str, Any]:
        with audio_errors(f"{self.song} cannot be read", "check its name"):
            stat = self.song.stat()
            with self.song.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bytes": stat.st_size, "modified_ns": stat.st_mtime_ns, "sha256": digest}

    def _is_same_song(self, was: Mapping[str, Any]) -> bool:
        """By length and time of change; by its bytes where only the time differs."""
        try:
            stat = self.song.stat()
        except OSError:
            return False
        if stat.st_size != was["bytes"]:
            return False
        try:
            touched = {**was, "modified_ns": stat.st_mtime_ns}
            return touched == was or touched == self._song()
        except AudioError:
            return False

    def _place(self, name: str) -> Path:
        path = self.directory / name
        if not path.is_relative_to(self.directory) or ".." in path.parts:
            raise ValueError(name)
        return path

    def _read(self) -> dict[str, Any] | None:
        try:
            if self.path.stat().st_size > MAX_BYTES:
                return None
            found = json.loads(self.path.read_bytes())
        except (OSError, ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None
