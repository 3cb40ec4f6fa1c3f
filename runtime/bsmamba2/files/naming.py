"""Names of stem files: ``{name}_{stem}.{ext}``, or another template; and of hidden files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from string import Formatter

from bsmamba2.errors import AudioError

DEFAULT_TEMPLATE = "{name}_{stem}.{ext}"
TAG_FIELDS = ("track", "artist", "title", "album")
FIELDS = ("name", "stem", "model", "source_ext", *TAG_FIELDS, "ext")
_END = ".{ext}"

HIDDEN_BYTES = 120
"""Hidden names are no longer than this before their ending: some folders allow only 143 bytes."""

TAG_BYTES = 100
"""At most so much of a tag becomes a part of a name."""


@dataclass(frozen=True)
class Template:
    """The path of a stem, relative to the output folder.

    ``{name}`` is the song's file name without its suffix, and ``{source_ext}`` the suffix without
    its dot; ``{stem}`` and ``{model}`` are the names of stem and model. ``{track}`` (two digits),
    ``{artist}``, ``{title}`` and ``{album}`` are the song's tags. A ``/`` separates folders:
    ``{name}/{stem}.{ext}``. A template ends with ``.{ext}``, because a stem that exceeds full scale
    may need another format.

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
        inside = not path.is_absolute() and ".." not in path.parts and not set("\\\0") & set(body)
        if not (plain and inside and self.text.endswith(_END) and "{ext}" not in body and body):
            raise AudioError(
                "template must be a path below the output folder, made of "
                f"{', '.join('{' + field + '}' for field in FIELDS)}, and end with {_END}; "
                f"got {self.text!r}: the default is {DEFAULT_TEMPLATE}"
            )

    @property
    def has_tags(self) -> bool:
        """Whether a name depends on the song's tags."""
        return any(f"{{{field}}}" in self.text for field in TAG_FIELDS)

    def base(
        self, song: str, stem: str, model: str, tags: Mapping[str, list[str]] | None = None
    ) -> str:
        """Returns the path without its suffix, with ``/`` between folders.

        Args:
            song: the song's file name.
            stem, model: their names.
            tags: values by the lower-case names of Vorbis comments.
        """
        name = PurePosixPath(song)
        first = {key: values[0] for key, values in (tags or {}).items() if values}
        number = first.get("tracknumber", "").partition("/")[0].strip()
        fields = {
            "name": name.stem,
            "source_ext": name.suffix[1:] or "none",
            "stem": stem,
            "model": _one_part(model),
            "track": number.zfill(2) if number.isdecimal() and len(number) < 9 else "00",
            "artist": _of_tag(first.get("artist") or first.get("albumartist"), "unknown artist"),
            "title": _of_tag(first.get("title"), name.stem),
            "album": _of_tag(first.get("album"), "unknown album"),
        }
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


def require_lengths(path: Path) -> None:
    """Requires a file's name and path to be short enough for its folder, which need not exist.

    Raises:
        AudioError: one of them is too long, or contains NUL.
    """
    if "\0" in str(path):
        raise AudioError(f"{str(path)!r} cannot be a path: remove the NUL")
    folder = path.parent
    while not os.path.exists(folder) and folder != folder.parent:  # noqa: PTH110 - never raises
        folder = folder.parent
    limit, path_limit = _limit(folder, "PC_NAME_MAX", 255), _limit(folder, "PC_PATH_MAX", 4096)
    for part in path.relative_to(folder).parts:
        if (size := len(os.fsencode(part))) > limit:
            raise AudioError(
                f"{path} has a name of {size} bytes, and its folder allows {limit}: choose a "
                "shorter template, or rename the song"
            )
    hidden = path.with_name("x" * (HIDDEN_BYTES + len(".12345678.part")))
    if (size := max(len(os.fsencode(name.absolute())) for name in (path, hidden))) >= path_limit:
        raise AudioError(
            f"{path} is a path of {size} bytes, and the system allows {path_limit - 1}: choose "
            "another folder"
        )


def hidden_name(name: str, ending: str) -> str:
    """Returns the name of a hidden file next to a file; it is short even if the file's is not."""
    data = os.fsencode(name)
    if len(data) >= HIDDEN_BYTES:
        start = data[: HIDDEN_BYTES // 2].decode(errors="ignore")
        name = f"{start}~{hashlib.sha256(data).hexdigest()[:16]}"
    return f".{name}{ending}"


def _limit(folder: Path, which: str, default: int) -> int:
    try:
        known = os.pathconf(folder, which)
    except (AttributeError, OSError, ValueError):  # Windows, or a folder that has no limit
        return default
    return known if known > 0 else default


def _one_part(text: str) -> str:
    """Makes a name that comes from an untrusted file one part of a path."""
    printable = "".join(letter if letter.isprintable() else "_" for letter in text)
    part = printable.replace("/", "_").replace("\\", "_")
    return "_" if part in ("", ".", "..") else part


def _of_tag(text: str | None, otherwise: str) -> str:
    """Makes a tag one part of a path that is neither hidden nor long."""
    start = (text or "").strip().encode(errors="ignore")[:TAG_BYTES].decode(errors="ignore")
    part = _one_part(start).lstrip(".").strip()
    return part if part.strip("_") else otherwise
