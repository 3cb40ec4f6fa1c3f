"""Copies tags and cover art from a song to its stems, as far as both formats support them.

Between files with the same kind of tags (ID3 in MP3, WAV and AIFF; Vorbis comments in FLAC and Ogg)
all tags are copied; between different kinds, pictures and the tags in :data:`NAMES`, and of APE
tags all that is text. Tags that
describe the song's samples, such as its loudness, are dropped: they are wrong for a stem.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from mutagen.aiff import AIFF
from mutagen.flac import FLAC, Picture
from mutagen.id3 import APIC, COMM, ID3, TXXX, USLT, Frames
from mutagen.mp3 import MP3
from mutagen.mp4 import MP4, MP4Cover
from mutagen.oggvorbis import OggVorbis
from mutagen.wave import WAVE

from bsmamba2.errors import first_line
from bsmamba2.files.ape_and_asf import PlainTags
from bsmamba2.files.id3_bounds import Budget
from bsmamba2.files.native_chunks import NativeChunks, read_native_chunks
from bsmamba2.files.speakers import FLAC_COMMENT, IMPLIED_MASKS
from bsmamba2.files.tag_blocks import open_tags

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger("bsmamba2")

MAX_PICTURE_BYTES = (1 << 24) - (1 << 16)
"""A FLAC block holds at most 16 MiB."""

NAMES = {
    # Vorbis comment: ID3 frame, MP4 atom
    "title": ("TIT2", "\xa9nam"),
    "artist": ("TPE1", "\xa9ART"),
    "album": ("TALB", "\xa9alb"),
    "albumartist": ("TPE2", "aART"),
    "composer": ("TCOM", "\xa9wrt"),
    "conductor": ("TPE3", ""),
    "lyricist": ("TEXT", ""),
    "genre": ("TCON", "\xa9gen"),
    "date": ("TDRC", "\xa9day"),
    "tracknumber": ("TRCK", "trkn"),
    "discnumber": ("TPOS", "disk"),
    "bpm": ("TBPM", "tmpo"),
    "initialkey": ("TKEY", ""),
    "copyright": ("TCOP", "cprt"),
    "isrc": ("TSRC", ""),
    "language": ("TLAN", ""),
    "organization": ("TPUB", ""),
    "comment": ("COMM", "\xa9cmt"),
    "lyrics": ("USLT", "\xa9lyr"),
}
ABOUT_SAMPLES = ("replaygain", "r128_", "itunnorm", "itunsmpb", "tlen", "tsse", "rva2", "encoder")

OF_TIMES = ("cuesheet", "chap", "ctoc", "etco", "mllt", "sylt", "sytc")
"""Vorbis comments and ID3 frames that state times within the song."""

_ID3_FILES = (MP3, WAVE, AIFF)
_WRITERS: dict[str, Callable[..., Any]] = {
    "FLAC": FLAC,
    "OGG": OggVorbis,
    "MP3": MP3,
    "WAV": WAVE,
    "WAVEX": WAVE,
    "AIFF": AIFF,
}


@dataclass
class Tags:
    """The tags of a file."""

    fields: dict[str, list[str]] = field(default_factory=dict)
    """Values by the lower-case name of a Vorbis comment."""
    frames: list[Any] = field(default_factory=list)
    """The unchanged ID3 frames, if the file has ID3 tags."""
    pictures: list[Picture] = field(default_factory=list)
    native: NativeChunks = field(default_factory=NativeChunks)
    """The song's chunks that describe it, for stems of the same kind."""

    def with_speakers(self, mask: int | None, channels: int) -> Tags:
        """Returns these tags with the comment that states the speakers of a FLAC file.

        Without it FFmpeg takes five and six channels for layouts with speakers at the sides.
        """
        fields = {name: lines for name, lines in self.fields.items() if name != FLAC_COMMENT}
        if mask is not None and (channels > 2 or mask != IMPLIED_MASKS[channels]):
            fields[FLAC_COMMENT] = [f"0x{mask:04X}"]
        return replace(self, fields=fields)

    def for_excerpt(self, first: int) -> Tags:
        """Returns the tags for an excerpt that starts at a sample of the song.

        What states times within the song is left out, and the time reference is that of the sample.
        """
        fields = {name: lines for name, lines in self.fields.items() if name not in OF_TIMES}
        if (reference := fields.get("time_reference", [""])[0]).isdecimal():
            fields["time_reference"] = [str(int(reference[:20]) + first)]
        frames = [frame for frame in self.frames if frame.FrameID.lower() not in OF_TIMES]
        native = self.native.for_excerpt(first)
        return replace(self, fields=native.fields | fields, frames=frames, native=native)

    def __bool__(self) -> bool:
        return bool(self.fields or self.frames or self.pictures)


def read_tags(path: Path) -> Tags:
    """Reads a song's tags; logs a warning and returns those of its chunks if others are damaged.

    Tags that are too large or too many are left out, with a warning.
    """
    try:
        native = read_native_chunks(path)
    except OSError:
        native = NativeChunks()
    tags = Tags() if native.kind and not native.has_id3 else _read_tags(path)
    return replace(tags, native=native, fields=native.fields | tags.fields)


def _read_tags(path: Path) -> Tags:
    budget = Budget()
    try:
        tags = _read(path, budget)
        if budget.left_out:
            log.warning(
                "%d tags of %s are damaged or too large: its stems do not have them",
                budget.left_out,
                path.name,
            )
        return tags
    except Exception as error:  # mutagen raises many classes for a malformed file
        log.warning(
            "the tags of %s are damaged (%s): its stems have none", path.name, first_line(error)
        )
        return Tags()


def _read(path: Path, budget: Budget) -> Tags:
    found = open_tags(path, budget)
    if isinstance(found, ID3):
        return _from_id3(found)
    if isinstance(found, PlainTags):
        kept = {k: v for k, v in found.fields.items() if not _is_about_samples(k)}
        return Tags(kept, pictures=found.pictures)
    if found is None or found.tags is None:
        return Tags()
    return _from_mp4(found.tags) if isinstance(found, MP4) else _from_vorbis(found)


def write_tags(path: Path, container: str, tags: Tags, name: str) -> None:
    """Writes tags to a finished stem, if its container supports them.

    Args:
        path: the stem.
        container: libsndfile's name of its container, e.g. ``FLAC``.
        tags: the tags of the song.
        name: name of the file in log messages.

    Raises:
        OSError: the tags cannot be written; the file may be damaged.
    """
    kind = _WRITERS.get(container)
    if container != "FLAC":
        tags = replace(tags, fields={k: v for k, v in tags.fields.items() if k != FLAC_COMMENT})
    if tags.native.fits(container):  # its chunks hold what they state
        stated = tags.native.fields
        tags = replace(tags, fields={k: v for k, v in tags.fields.items() if k not in stated})
    if kind is None or not tags:
        return
    try:
        file = kind(path)
        if file.tags is None:
            file.add_tags()
        if isinstance(file, _ID3_FILES):
            _to_id3(file.tags, tags)
        else:
            _to_vorbis(file, tags)
        file.save()
    except Exception as error:
        # mutagen wraps errors of the operating system in its own.
        for cause in (error, *error.args):
            if isinstance(cause, OSError):
                raise cause from None
        log.warning("the tags of %s could not be written (%s)", name, first_line(error))


def _from_id3(id3: ID3) -> Tags:
    frames = [frame for frame in id3.values() if not _is_about_samples(frame.HashKey)]
    tags = Tags(frames=[frame for frame in frames if not isinstance(frame, APIC)])
    name_of_frame = {id: name for name, (id, _) in NAMES.items()}
    for frame in sorted(tags.frames, key=_is_secondary):
        named = frame.FrameID == "TXXX"
        name = frame.desc.lower() if named else name_of_frame.get(frame.FrameID)
        text = getattr(frame, "text", None)
        if name and text:
            lines = [text] if isinstance(text, str) else [str(line) for line in text]
            tags.fields.setdefault(name, lines)
    tags.pictures = [_picture(f.data, f.mime, f.type, f.desc) for f in id3.getall("APIC")]
    return tags


def _is_secondary(frame: Any) -> bool:
    """Whether another frame of the same name counts first: one without a description."""
    if frame.FrameID in ("COMM", "USLT"):
        return bool(frame.desc)
    return bool(frame.FrameID == "TXXX")


def _from_vorbis(file: Any) -> Tags:
    tags = Tags()
    for name, value in file.tags:
        if name.lower() == "metadata_block_picture":
            try:
                tags.pictures.append(Picture(base64.b64decode(value)))
            except Exception as error:  # of many classes, as above
                log.warning("a picture of %s is damaged: it is dropped", first_line(error))
        elif not _is_about_samples(name):
            tags.fields.setdefault(name.lower(), []).append(value)
    tags.pictures += getattr(file, "pictures", [])
    return tags


def _from_mp4(atoms: Any) -> Tags:
    tags = Tags()
    for name, (_, atom) in NAMES.items():
        if atom in atoms:
            tags.fields[name] = [_line(value) for value in atoms[atom]]
    for cover in atoms.get("covr", []):
        png = cover.imageformat == MP4Cover.FORMAT_PNG
        tags.pictures.append(_picture(bytes(cover), "image/png" if png else "image/jpeg", 3, ""))
    return tags


def _to_id3(id3: Any, tags: Tags) -> None:
    for frame in tags.frames or [_frame(name, lines) for name, lines in tags.fields.items()]:
        id3.add(frame)
    for p in _fitting(tags):
        id3.add(APIC(encoding=3, mime=p.mime, type=p.type, desc=p.desc, data=p.data))


def _to_vorbis(file: Any, tags: Tags) -> None:
    for name, lines in tags.fields.items():
        if name.isascii() and name.isprintable() and "=" not in name and name:
            file.tags[name] = lines
    if isinstance(file, FLAC):
        for picture in _fitting(tags):
            file.add_picture(picture)
    elif tags.pictures:
        blocks = [base64.b64encode(p.write()).decode("ascii") for p in _fitting(tags)]
        file.tags["metadata_block_picture"] = blocks


def _frame(name: str, lines: list[str]) -> Any:
    id = NAMES.get(name, ("TXXX", ""))[0]
    if id == "TXXX":
        return TXXX(encoding=3, desc=name, text=lines)
    if id == "USLT":
        return USLT(encoding=3, lang="XXX", desc="", text="\n".join(lines))
    if id == "COMM":
        return COMM(encoding=3, lang="XXX", desc="", text=lines)
    make: Callable[..., Any] = Frames[id]
    return make(encoding=3, text=lines)


def _fitting(tags: Tags) -> list[Picture]:
    return [picture for picture in tags.pictures if len(picture.data) <= MAX_PICTURE_BYTES]


def _picture(data: bytes, mime: str, type: int, description: str) -> Picture:
    picture = Picture()
    picture.data, picture.mime, picture.type, picture.desc = data, mime, type, description
    return picture


def _line(value: Any) -> str:
    """Formats a value; MP4 stores track numbers as pairs, (3, 12), where 0 means unknown."""
    if isinstance(value, tuple):
        return "/".join(str(number) for number in value if number)
    return str(value)


def _is_about_samples(name: str) -> bool:
    return any(word in name.lower() for word in ABOUT_SAMPLES)
