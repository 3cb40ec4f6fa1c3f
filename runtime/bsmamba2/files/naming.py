"""What the files of stems are called: ``{name}_{stem}.{ext}``, or as a template says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from string import Formatter

from bsmamba2.errors import AudioError

DEFAULT_TEMPLATE = "{name}_{stem}.{ext}"
FIELDS = ("name", "stem", "model", "ext")
_END = ".{ext}"


@dataclass(frozen=True)
class Template:
    """Where a stem goes, below the folder for stems.

    ``{name}`` is the song's file name without its suffix, ``{stem}`` what the file holds,
    ``{model}`` what made it. A ``/`` makes folders: ``{name}/{stem}.{ext}``. The end is
    ``.{ext}``, since a stem that leaves full scale may need another format than the rest.

    Raises:
        AudioError: another field, another end, or a way out of the folder.
    """

    text: str = DEFAULT_TEMPLATE

    def __post_init__(self) -> None:
        try:
            parts = list(Formatter().parse(self.text))
        except ValueError:
            parts = [("", "{", "", None)]
        plain = all(
            field is None or (field in FIELDS and not spec and not how)
            for _, field, spec, how in parts
        )
        body = self.text.removesuffix(_END)
        places = PurePosixPath(body)
        inside = not places.is_absolute() and ".." not in places.parts and "\\" not in body
        if not (plain and inside and self.text.endswith(_END) and "{ext}" not in body and body):
            raise AudioError(
                "template must be a path below the output folder made of "
                f"{', '.join('{' + field + '}' for field in FIELDS)}, with {_END} at its end; "
                f"{self.text!r} came: the default is {DEFAULT_TEMPLATE}"
            )

    def base(self, name: str, stem: str, model: str) -> str:
        """The path without its suffix; ``/`` between folders."""
        fields = {"name": name, "stem": stem, "model": _one_part(model)}
        return self.text.removesuffix(_END).format(**fields)

    def require_stems(self, count: int) -> None:
        """Refuses to give several stems one name.

        Raises:
            AudioError: the template has no ``{stem}``.
        """
        if count > 1 and "{stem}" not in self.text:
            raise AudioError(
                f"template must have {{stem}} where {count} stems are written; {self.text!r} came"
            )


def _one_part(text: str) -> str:
    """A model's name comes from a stranger's file, and must not make folders."""
    part = text.replace("/", "_").replace("\\", "_")
    return "_" if part in ("", ".", "..") else part
