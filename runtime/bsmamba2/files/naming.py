"""Names of stem files: ``{name}_{stem}.{ext}``, or another template."""

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
    """The path of a stem, relative to the output folder.

    ``{name}`` is the song's file name without its suffix; ``{stem}`` and ``{model}`` are the names
    of stem and model. A ``/`` separates folders: ``{name}/{stem}.{ext}``. A template ends with
    ``.{ext}``, because a stem that exceeds full scale may need another format.

    Raises:
        AudioError: the template has an unknown field, another end, or leaves the folder.
    """

    text: str = DEFAULT_TEMPLATE

    def __post_init__(self) -> None:
        try:
            parts = list(Formatter().parse(self.text))
        except ValueError:
            parts = [("", "{", "", None)]
        plain = all(
            field is None or (field in FIELDS and not spec and not conversion)
            for _, field, spec, conversion in parts
        )
        body = self.text.removesuffix(_END)
        path = PurePosixPath(body)
        inside = not path.is_absolute() and ".." not in path.parts and "\\" not in body
        if not (plain and inside and self.text.endswith(_END) and "{ext}" not in body and body):
            raise AudioError(
                "template must be a path below the output folder, made of "
                f"{', '.join('{' + field + '}' for field in FIELDS)}, and end with {_END}; "
                f"got {self.text!r}: the default is {DEFAULT_TEMPLATE}"
            )

    def base(self, name: str, stem: str, model: str) -> str:
        """Returns the path without its suffix, with ``/`` between folders."""
        fields = {"name": name, "stem": stem, "model": _one_part(model)}
        return self.text.removesuffix(_END).format(**fields)

    def require_stems(self, count: int) -> None:
        """Requires a name for each of several stems.

        Raises:
            AudioError: the template has no ``{stem}``.
        """
        if count > 1 and "{stem}" not in self.text:
            raise AudioError(
                f"template must have {{stem}} to write {count} stems; got {self.text!r}"
            )


def _one_part(text: str) -> str:
    """Makes a model's name, which comes from an untrusted file, one part of a path."""
    part = text.replace("/", "_").replace("\\", "_")
    return "_" if part in ("", ".", "..") else part
