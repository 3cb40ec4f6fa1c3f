"""What all stems of a destination are made with: the source, the model and the options."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from bsmamba2.errors import AudioError, shown
from bsmamba2.files.naming import TAG_FIELDS
from bsmamba2_cluster.storage import StorageError

if TYPE_CHECKING:
    from bsmamba2 import Manifest
    from bsmamba2.batch.plan import OutputOptions
    from bsmamba2_cluster.storage import Storage

FOLDER = ".bsmamba2"
"""The folder of a destination with everything that is not a stem."""

KEY = f"{FOLDER}/recipe.json"


@dataclass(frozen=True)
class Recipe:
    """A destination has one recipe, so that its records say all about its stems."""

    source: str
    """Address of the songs."""
    model: str
    manifest_sha256: str
    options: dict[str, Any]

    @classmethod
    def of(cls, source: str, manifest: Manifest, options: OutputOptions) -> Recipe:
        """States a model and options.

        Raises:
            AudioError: the template uses tags: two songs may have the same, and workers would
                write to one name.
            ModelError: the model has no such stem.
        """
        if any(f"{{{field}}}" in options.template for field in TAG_FIELDS):
            raise AudioError(
                "template must have no tags, because two songs can have the same; got "
                f"{options.template!r}: use {{name}}, {{stem}}, {{model}} and {{source_ext}}"
            )
        stated = asdict(options) | {
            "stems": list(options.selected_stems(manifest)),
            "overlap": manifest.overlap if options.overlap is None else options.overlap,
        }
        return cls(source, manifest.name, manifest.fingerprint, stated)

    @cached_property
    def text(self) -> str:
        return json.dumps({"format": 1, **asdict(self)}, indent=1, sort_keys=True)

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    def settle(self, destination: Storage, *, overwrite: bool = False) -> None:
        """Makes this the destination's recipe.

        Raises:
            StorageError: it has another, and ``overwrite`` is false.
        """
        data = self.text.encode()
        if overwrite:
            destination.replace(KEY, data)
        elif not destination.create(KEY, data):
            self.require_settled(destination)

    def require_settled(self, destination: Storage) -> None:
        """Requires the destination to have this recipe.

        Raises:
            StorageError: it has another.
        """
        stored = destination.read(KEY)
        if stored == self.text.encode():
            return
        raise StorageError(
            f"{destination.address} has stems of {_difference(stored, self)}: choose another "
            "destination, or replace its stems with overwrite=True"
        )


def _difference(stored: bytes | None, recipe: Recipe) -> str:
    try:
        other = json.loads(stored or b"")
        if other["source"] != recipe.source:
            return f"other songs ({shown(other['source'])})"
        if other["manifest_sha256"] != recipe.manifest_sha256:
            return f"another model ({shown(other['model'])})"
        changed = [k for k, v in recipe.options.items() if other["options"].get(k) != v]
    except (ValueError, KeyError, TypeError, AttributeError):
        return "another recipe"
    return f"other options ({', '.join(changed)})"
