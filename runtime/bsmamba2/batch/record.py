"""Records: what a song's stems were made from, in a small JSON file next to them, for ``--resume``.

    .song.flac.bsmamba2.json  {"song": …, "model": …, "options": …, "outputs": …}

A record is written when all stems are complete on the disk, just before they get their final names.
So if a matching record exists, its outputs belong to this separation. Either all of them exist, or
a run was killed before it had renamed all of them, and they can be written again.
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
    """The stems of a song that a run wrote or was about to rename."""

    outputs: Mapping[str, Path]
    is_complete: bool
    """False if the run was killed before all had their final names."""


@dataclass(frozen=True)
class Record:
    """The record of one song, with the model and options that separate it.

    Args:
        song: the file.
        directory: folder of the stems and of the record.
        model: the model's manifest.
        options: everything that changes the stems' bytes or names.
    """

    song: Path
    directory: Path
    model: Manifest
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        return self.directory / f".{self.song.name}.bsmamba2.json"

    def read(self) -> RecordedStems | None:
        """Reads the stems from the record on the disk, if it is for this song, model and options.

        Returns None if it is not, or if the size of a stem has changed since.
        """
        stored = self._read_json()
        if stored is None or any(stored.get(k) != v for k, v in self._key().items()):
            return None
        try:
            if not self._is_same_song(stored["song"]):
                return None
            outputs = {str(s): self._inside(out["file"]) for s, out in stored["outputs"].items()}
            sizes = {str(s): out["bytes"] for s, out in stored["outputs"].items()}
        except (KeyError, TypeError, AttributeError, ValueError):
            return None
        existing = {stem for stem, path in outputs.items() if os.path.lexists(path)}
        if any(outputs[stem].lstat().st_size != sizes[stem] for stem in existing):
            return None
        return RecordedStems(outputs, is_complete=len(existing) == len(outputs) > 0)

    def write(self, sizes: Mapping[str, tuple[Path, int]]) -> None:
        """Records the paths of the stems and their sizes in bytes.

        Raises:
            AudioError: the folder cannot be written.
        """
        outputs = {
            stem: {"file": path.relative_to(self.directory).as_posix(), "bytes": size}
            for stem, (path, size) in sizes.items()
        }
        content = {**self._key(), "song": self._identity(), "outputs": outputs}
        text = json.dumps(content, indent=1)
        with audio_errors(f"{self.path} cannot be written", "choose another directory (-o)"):
            write_atomically(self.path, text.encode("ascii"))

    def _key(self) -> dict[str, Any]:
        model = {"name": self.model.name, "manifest_sha256": self.model.fingerprint}
        return {"bsmamba2": FORMAT, "model": model, "options": dict(self.options)}

    def _identity(self) -> dict[str, Any]:
        with audio_errors(f"{self.song} cannot be read", "check its name"):
            stat = self.song.stat()
            with self.song.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bytes": stat.st_size, "modified_ns": stat.st_mtime_ns, "sha256": digest}

    def _is_same_song(self, recorded: Mapping[str, Any]) -> bool:
        """Compares size and modification time; if only the time differs, compares the SHA-256."""
        try:
            stat = self.song.stat()
        except OSError:
            return False
        if stat.st_size != recorded["bytes"]:
            return False
        try:
            touched = {**recorded, "modified_ns": stat.st_mtime_ns}
            return touched == recorded or touched == self._identity()
        except AudioError:
            return False

    def _inside(self, name: str) -> Path:
        path = self.directory / name
        if not path.is_relative_to(self.directory) or ".." in path.parts:
            raise ValueError(name)
        return path

    def _read_json(self) -> dict[str, Any] | None:
        try:
            if self.path.stat().st_size > MAX_BYTES:
                return None
            found = json.loads(self.path.read_bytes())
        except (OSError, ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None
