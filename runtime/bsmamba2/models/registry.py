"""The named models: those in the package, and published checkpoints."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bsmamba2.errors import ModelError, printable
from bsmamba2.files.cache import cache_folder

DEFAULT = "small"
"""The model that runs if none is named."""

ABOUT = {DEFAULT: "vocals; trained on speech turned into singing over free game music"}
"""Descriptions of the shipped weights."""


@dataclass(frozen=True)
class Published:
    """A checkpoint published elsewhere, downloaded on request."""

    name: str
    """The stem of the file's name."""
    url: str
    size: int
    """Bytes."""
    sha256: str
    licence: str
    """Licence of the weights, as their publisher states it."""
    about: str

    @property
    def path(self) -> Path:
        """The path of the downloaded file."""
        return cache_folder() / "models" / self.url.rpartition("/")[2]

    @property
    def is_fetched(self) -> bool:
        try:
            return self.path.stat().st_size == self.size
        except OSError:  # missing or unreadable
            return False

    @property
    def how_to_fetch(self) -> str:
        """The command that downloads it, with its size and licence."""
        return (
            f"bsmamba2 models fetch {self.name} ({self.size / 1e6:.0f} MB, licence of the weights "
            f"{self.licence})"
        )

    def fetch(self, received: Callable[[int], None] = lambda _: None) -> Path:
        """Downloads and verifies the file; see :func:`bsmamba2.models.download.download`."""
        # Imported here, because nothing else needs the network.
        from bsmamba2.models.download import download

        download(self.url, self.path, self.size, self.sha256, received)
        return self.path


PUBLISHED = (
    Published(
        name="bs_mamba2_vocals",
        url="https://github.com/ZFTurbo/Music-Source-Separation-Training/releases/download/"
        "v1.0.19/bs_mamba2_vocals.ckpt",
        size=192_610_602,
        sha256="fceb733b41742abb8df563092f4cb5bbc9243c6c03e7f34dc44c14e60732c72f",
        licence="not stated",
        about="vocals, paper's size",
    ),
)


def shipped() -> dict[str, Path]:
    """Returns the weights in the package, by name."""
    folder = Path(__file__).parent / "weights"
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def names() -> list[str]:
    """Returns the names of all models, shipped and published."""
    return [*shipped(), *(model.name for model in PUBLISHED)]


def find_published(name: str) -> Published:
    """Returns the published checkpoint of that name.

    Raises:
        ModelError: there is none; the message lists the names.
    """
    known = {model.name: model for model in PUBLISHED}
    if name in known:
        return known[name]
    fix = hint(name) or f"choose from {', '.join(known)}"
    raise ModelError(f"no published model is called {printable(repr(name))}: {fix}")


def hint(name: str) -> str:
    """Returns ``did you mean …?`` if the name is close to a known one; otherwise an empty text."""
    near = difflib.get_close_matches(name, names(), n=1)
    return f"did you mean {near[0]}?" if near else ""


def find_path(name: str) -> Path | None:
    """Returns the file of the model with that name; None if the registry has none.

    Raises:
        ModelError: the model must be downloaded first; the message contains the command.
    """
    if name in (here := shipped()):
        return here[name]
    for model in PUBLISHED:
        if model.name == name:
            if not model.is_fetched:
                raise ModelError(f"{name} is not downloaded yet: run {model.how_to_fetch}")
            return model.path
    return None


def require_published(path: Path, sha256: str) -> None:
    """Refuses a downloaded file that is not the published one.

    Raises:
        ModelError: its SHA-256 differs; the message contains the command that downloads it again.
    """
    for model in PUBLISHED:
        if model.path == path and model.sha256 != sha256:
            raise ModelError(
                f"{path} is not the published file (its SHA-256 differs): run bsmamba2 models "
                f"fetch {model.name}, which downloads it again"
            )
