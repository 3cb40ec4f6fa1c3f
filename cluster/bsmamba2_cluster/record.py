"""Records: what was made from a song, and the keys under which this is found."""

from __future__ import annotations

import builtins
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from bsmamba2_cluster.recipe import FOLDER, Recipe
from bsmamba2_cluster.storage import StorageError

WORK = f"{FOLDER}/work"
RECORDS = f"{FOLDER}/records"


@dataclass(frozen=True)
class Stem:
    """A stem as records list it."""

    key: str
    """Relative to the destination."""
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Record:
    """What was made from a song. It is the last object that is written."""

    song: str
    """Key, relative to the source."""
    bytes: int
    version: str
    """The song's ETag."""
    recipe: str
    """SHA-256 of the recipe."""
    outputs: Mapping[str, Stem]
    attempt: str
    """The folder of the committed attempt."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Length, time, worker and device."""

    def to_bytes(self) -> builtins.bytes:
        return json.dumps({"format": 1, **asdict(self)}, indent=1).encode()

    @classmethod
    def parse(cls, data: builtins.bytes) -> Record:
        """Reads a record or commit.

        Raises:
            StorageError: it is damaged.
        """
        try:
            fields = json.loads(data)
            del fields["format"]
            outputs = {stem: Stem(**out) for stem, out in fields.pop("outputs").items()}
            return cls(outputs=outputs, **fields)
        except (ValueError, TypeError, KeyError, AttributeError):
            raise StorageError("a record is damaged: remove it, and run again") from None


def song_id(key: str) -> str:
    """Returns the id of a song: a digest, so any key is safe and short."""
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def version_id(size: int, version: str, recipe: Recipe) -> str:
    """Returns the id of one content of a song with one recipe."""
    return hashlib.sha256(f"{size} {version} {recipe.digest}".encode()).hexdigest()[:32]


def record_key(song: str, version: str) -> str:
    """Returns the key of a record, by the ids of the song and its version."""
    return f"{RECORDS}/{song[:2]}/{song}/{version}"
