"""Records: what a song's stems were made from, in a small JSON file next to them, for ``--resume``.

    .song.flac.bsmamba2.json  {"song": …, "model": …, "options": …, "outputs": …}

A record is written when all stems are complete on the disk, just before they get their final names.
So if a matching record exists, its outputs belong to this separation. Either all of them exist, or
a run was killed before it had renamed all of them, and they can be written again. A record also
lists the stems of earlier runs that still exist, so that no later run takes them for songs.
"""

from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bsmamba2.files.hashing import file_sha256
from bsmamba2.files.identity import Identity
from bsmamba2.files.naming import hidden_name
from bsmamba2.files.part_file import write_atomically
from bsmamba2.files.regular_file import read_regular
from bsmamba2.files.song_file import audio_errors

if TYPE_CHECKING:
    from bsmamba2.formats.manifest import Manifest

log = logging.getLogger("bsmamba2")

FORMAT = 1
MAX_BYTES = 1 << 16
MAX_EARLIER = 64
"""The most stems of earlier runs that a record lists."""

ENDING = ".bsmamba2.json"
"""How the names of records end."""


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
        label: what the names of a record have that is not of the song's stems, such as ``_mix``:
            it neither replaces theirs nor is taken for it.
    """

    song: Path
    directory: Path
    model: Manifest
    options: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""

    @property
    def path(self) -> Path:
        return self.directory / hidden_name(self.song.name + self.label, ENDING)

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
            listed = {str(stem): out for stem, out in stored["outputs"].items()}
            outputs = {stem: self._own(stem, out["file"]) for stem, out in listed.items()}
            sizes = {stem: out["bytes"] for stem, out in listed.items()}
        except (KeyError, TypeError, AttributeError, ValueError):
            return None
        existing = {stem for stem, path in outputs.items() if os.path.lexists(path)}
        for stem in existing:
            info = outputs[stem].lstat()
            if not stat.S_ISREG(info.st_mode) or info.st_size != sizes[stem]:
                return None
        return RecordedStems(outputs, is_complete=len(existing) == len(outputs) > 0)

    def write(
        self, sizes: Mapping[str, tuple[Path, int]], identity: Identity | None = None
    ) -> None:
        """Records the paths of the stems and their sizes in bytes.

        Args:
            sizes: the path and the size of each stem.
            identity: the song that they were made from. Default: the file as it is now.

        Raises:
            AudioError: the folder cannot be written, or the song cannot be read.
        """
        identity = identity or Identity.of(self.song)
        outputs = {
            stem: {"file": path.relative_to(self.directory).as_posix(), "bytes": size}
            for stem, (path, size) in sizes.items()
        }
        song = {
            "bytes": identity.bytes,
            "modified_ns": identity.modified_ns,
            "sha256": identity.sha256,
        }
        written = {path for path, _ in sizes.values()}
        earlier = {
            path.relative_to(self.directory).as_posix(): size
            for path, size in list(_existing(self._read_json(), self.directory).items())
            if path not in written
        }
        content = {**self._key(), "song": song, "outputs": outputs}
        content |= {"earlier": dict(list(earlier.items())[:MAX_EARLIER])} if earlier else {}
        text = json.dumps(content, indent=1)
        with audio_errors(f"{self.path} cannot be written", "choose another directory"):
            write_atomically(self.path, text.encode("ascii"))

    def remove_replaced(self, outputs: Mapping[str, Path]) -> None:
        """Removes the stems of earlier runs that the outputs replace under another suffix."""
        bases = {path.with_suffix("") for path in outputs.values()}
        kept = set(outputs.values())
        for path in _existing(self._read_json(), self.directory):
            if path in kept or path.with_suffix("") not in bases:
                continue
            with suppress(OSError):
                if not path.samefile(self.song):
                    path.unlink()
                    log.warning("%s, a stem of an earlier run, was removed", path)

    def _key(self) -> dict[str, Any]:
        model = {"name": self.model.name, "manifest_sha256": self.model.fingerprint}
        return {"bsmamba2": FORMAT, "model": model, "options": dict(self.options)}

    def _is_same_song(self, recorded: Mapping[str, Any]) -> bool:
        """Compares size and modification time; if only the time differs, compares the SHA-256."""
        try:
            known = self.song.stat()
            if known.st_size != recorded["bytes"]:
                return False
            if known.st_mtime_ns == recorded["modified_ns"]:
                return True
            return bool(file_sha256(self.song) == recorded["sha256"])
        except OSError:
            return False

    def _own(self, stem: str, name: str) -> Path:
        """Returns the path of a stem, which must be the one of this song and these options."""
        path = _inside(self.directory, name)
        base = self.options.get("files", {}).get(stem)
        if base is not None and not (path.suffix and path.with_suffix("") == self.directory / base):
            raise ValueError(name)
        return path

    def _read_json(self) -> dict[str, Any] | None:
        return _read_json(self.path)


def recorded_stems(record: Path) -> set[Path]:
    """Returns the existing stems that a record lists, of its last run and of earlier ones."""
    return set(_existing(_read_json(record), record.parent))


def _existing(content: Mapping[str, Any] | None, directory: Path) -> dict[Path, int]:
    """Returns the stems of a record's content that still have the size that it states."""
    if content is None:
        return {}
    listed = []
    with suppress(KeyError, TypeError, AttributeError):
        listed += [(out["file"], out["bytes"]) for out in content["outputs"].values()]
    with suppress(KeyError, TypeError, AttributeError):
        listed += content["earlier"].items()
    found = {}
    for name, size in listed:
        with suppress(OSError, TypeError, ValueError):
            path = _inside(directory, name)
            known = path.lstat()
            if stat.S_ISREG(known.st_mode) and known.st_size == size:
                found[path] = known.st_size
    return found


def _inside(directory: Path, name: str) -> Path:
    path = directory / name
    if not path.is_relative_to(directory) or ".." in path.parts:
        raise ValueError(name)
    return path


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(read_regular(path, MAX_BYTES, follow_links=False))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
