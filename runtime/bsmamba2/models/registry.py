"""The named models: those in the package, and those of the catalogues.

A user's own catalogue extends the one in the package. It is named by the option ``--catalogue`` or
the environment variable ``BSMAMBA2_CATALOGUE``.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

from bsmamba2.errors import Error, ModelError, printable
from bsmamba2.formats.model_settings import ModelSettings
from bsmamba2.models.cached_file import cached_files, find_cached
from bsmamba2.models.catalogue import Published, read_catalogue

DEFAULT = "small"
"""The model that runs if none is named."""

ABOUT = {
    DEFAULT: "vocals; trained on free game music with singers and with speech turned into singing"
}
"""Descriptions of the shipped weights."""

CATALOGUE_VARIABLE = "BSMAMBA2_CATALOGUE"

PUBLISHED = read_catalogue(Path(__file__).with_name("catalogue.json"))
"""The models of the catalogue in the package, BSMamba2 first."""

_chosen: Path | None = None


@dataclass(frozen=True)
class Member:
    """A downloaded file of a model, and the stems that it is used for."""

    path: Path
    stems: tuple[str, ...]


@contextmanager
def using_catalogue(path: Path) -> Iterator[None]:
    """Adds a catalogue while the context lasts, instead of that of the environment variable.

    Raises:
        ModelError: see :func:`bsmamba2.models.catalogue.read_catalogue`.
    """
    global _chosen
    before, _chosen = _chosen, path
    try:
        published()
        yield
    finally:
        _chosen = before


def user_catalogue() -> Path | None:
    """Returns the path of the user's own catalogue; None if there is none."""
    named = os.environ.get(CATALOGUE_VARIABLE)
    return _chosen or (Path(named).expanduser() if named else None)


def published() -> tuple[Published, ...]:
    """Returns the published models: those of the package, then those of the user's catalogue.

    Raises:
        ModelError: the user's catalogue is wrong.
    """
    path = user_catalogue()
    if path is None:
        return PUBLISHED
    try:
        info = path.stat()
    except (OSError, ValueError):
        return PUBLISHED + _added(path, 0, 0)
    return PUBLISHED + _added(path, info.st_mtime_ns, info.st_size)


@lru_cache(maxsize=4)
def _added(path: Path, modified_ns: int, size: int) -> tuple[Published, ...]:
    """Returns the models of a user's catalogue; it is read again only if it has changed."""
    added = read_catalogue(path, PUBLISHED)
    for model in added:
        if model.name in shipped():
            raise ModelError(
                f"the catalogue {printable(str(path), 1000)} must not have the name "
                f"{model.name}, which a model in the package has: rename it"
            )
    return added


def shipped() -> dict[str, Path]:
    """Returns the weights in the package, by name."""
    folder = Path(__file__).parent / "weights"
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def names() -> list[str]:
    """Returns every name; without those of a user's catalogue that is wrong."""
    try:
        known = published()
    except Error:
        known = PUBLISHED
    return [*shipped(), *(model.name for model in known)]


def how_to_fetch(model: Published) -> str:
    """Returns the command that downloads a model, with its size and licence."""
    size = "" if model.size is None else f"{model.size / 1e6:.0f} MB, "
    return f"bsmamba2 models fetch {model.name} ({size}licence of the weights {model.licence})"


def find_published(name: str) -> Published:
    """Returns the published model of that name.

    Raises:
        ModelError: there is none; the message has the nearest name.
    """
    for model in published():
        if model.name == name:
            return model
    if name in shipped():
        raise ModelError(f"{name} is in the package already: use it with -m {name}")
    fix = hint(name) or "bsmamba2 models lists them"
    raise ModelError(f"no published model is called {printable(repr(name))}: {fix}")


def hint(name: str) -> str:
    """Returns ``did you mean …?`` if the name is close to a known one; otherwise an empty text.

    Published files are also found by their own names.
    """
    known = {name: name for name in names()}
    for model in published():
        for cached in cached_files(model):
            file_name = Path(urlsplit(cached.source.url).path)
            known |= {file_name.name: model.name, file_name.stem: model.name}
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {known[near[0]]}?" if near else ""


def find_members(name: str) -> tuple[Member, ...]:
    """Returns the files of the model with that name; none if the registry has no such model.

    Most models are one file, which is used for all stems. In the others each file is used for the
    stems that it is best at, though its network returns all.

    Raises:
        ModelError: the model must be downloaded first; the message contains the command.
    """
    if name in (here := shipped()):
        return (Member(here[name], ()),)
    for model in published():
        if model.name == name:
            found = find_cached(model)
            if not found:
                raise ModelError(f"{name} is not downloaded yet: run {how_to_fetch(model)}")
            return tuple(Member(cached.path, cached.file.stems) for cached in found)
    return ()


def find_path(name: str) -> Path | None:
    """Returns the file of the model with that name; None if the registry has none.

    Raises:
        ModelError: the model must be downloaded first, or has several files.
    """
    members = find_members(name)
    if len(members) > 1:
        paths = ", ".join(str(member.path) for member in members)
        raise ModelError(
            f"{name} is made of {len(members)} files, and a single model is needed here: use one "
            f"of them, {paths}"
        )
    return members[0].path if members else None


def find_by_sha256(sha256: str) -> Published | None:
    """Returns the published model that has a file with this SHA-256."""
    for model in published():
        if any(cached.sha256 == sha256 for cached in cached_files(model)):
            return model
    return None


def settings_of(sha256: str) -> ModelSettings:
    """Returns what is known of a published checkpoint beyond its tensors."""
    model = find_by_sha256(sha256)
    return ModelSettings() if model is None else model.settings


def require_published(path: Path, sha256: str) -> None:
    """Refuses a downloaded file that is not the published one, or not the one that is pinned.

    Raises:
        ModelError: its SHA-256 differs; the message contains the command that downloads it again.
    """
    for model in published():
        for cached in cached_files(model):
            if cached.path == path and cached.sha256 not in (None, sha256):
                which = "published file" if cached.source.sha256 else "file of the first download"
                raise ModelError(
                    f"{path} is not the {which} (its SHA-256 differs): run bsmamba2 models "
                    f"fetch {model.name}, which downloads it again"
                )
