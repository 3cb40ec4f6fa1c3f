"""The models that have a name: those that come with the package, and published checkpoints."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bsmamba2.errors import ModelError, printable
from bsmamba2.files.cache import cache_folder

DEFAULT = "small"
"""What runs where no model is named."""

ABOUT = {DEFAULT: "vocals, learnt from speech turned into singing over free game music"}
"""What the shipped weights are."""


@dataclass(frozen=True)
class Published:
    """A checkpoint that somebody published, to be fetched when it is asked for."""

    name: str
    """The file's stem, as everywhere."""
    url: str
    size: int
    """Bytes."""
    sha256: str
    licence: str
    """Of the weights, as their publisher states it."""
    about: str

    @property
    def path(self) -> Path:
        """Where it lies once it is fetched."""
        return cache_folder() / "models" / self.url.rpartition("/")[2]

    @property
    def is_fetched(self) -> bool:
        try:
            return self.path.stat().st_size == self.size
        except OSError:  # it is not there, or nobody may look
            return False

    @property
    def how_to_fetch(self) -> str:
        """The line that fetches it, with what there is to know before."""
        return (
            f"bsmamba2 models fetch {self.name} ({self.size / 1e6:.0f} MB, licence of the weights "
            f"{self.licence})"
        )

    def fetch(self, arrived: Callable[[int], None] = lambda _: None) -> Path:
        """Downloads and verifies it; see :func:`bsmamba2.models.download.download`."""
        # Here, since nothing but this needs the network.
        from bsmamba2.models.download import download

        download(self.url, self.path, self.size, self.sha256, arrived)
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
    """The weights inside the package, by name."""
    folder = Path(__file__).parent / "weights"
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def find_published(name: str) -> Published:
    """The published checkpoint of that name.

    Raises:
        ModelError: none is; the message says which are.
    """
    found = {model.name: model for model in PUBLISHED}
    if name in found:
        return found[name]
    known = hint(name) or f"there is {', '.join(found)}"
    raise ModelError(f"no published model is called {printable(repr(name))}: {known}")


def hint(name: str) -> str:
    """``did you mean …?`` where a name is nearly one of the registry's; else nothing."""
    known = [*shipped(), *(model.name for model in PUBLISHED)]
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else ""


def find_path(name: str) -> Path | None:
    """The file of the model of that name; None where the registry has none.

    Raises:
        ModelError: it has to be fetched first; the message has the line.
    """
    if name in (here := shipped()):
        return here[name]
    for model in PUBLISHED:
        if model.name == name:
            if not model.is_fetched:
                raise ModelError(f"{name} has to be fetched first: run {model.how_to_fetch}")
            return model.path
    return None


def require_published(path: Path, sha256: str) -> None:
    """Refuses a file in the registry's folder that is not, any more, what was fetched to it.

    Raises:
        ModelError: its SHA-256 is another; the message has the line that fetches it again.
    """
    for model in PUBLISHED:
        if model.path == path and model.sha256 != sha256:
            raise ModelError(
                f"{path} is not what was published (its SHA-256 differs): run bsmamba2 models "
                f"fetch {model.name}, which gets it again"
            )
