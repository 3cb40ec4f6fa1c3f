"""Which container and sample format a stem is written in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

import soundfile

from bsmamba2.errors import AudioError

Clip: TypeAlias = Literal["float", "clip", "error"]
"""What becomes of a file whose samples leave ±1 where its format ends there: it is written as
32-bit float, the samples are clipped, or it is an error."""

BITS = {
    "PCM_U8": 8,
    "PCM_S8": 8,
    "PCM_16": 16,
    "PCM_24": 24,
    "PCM_32": 32,
    "ALAC_16": 16,
    "ALAC_24": 24,
    "ALAC_32": 32,
}
"""Integer formats that keep every bit."""

FLOATS = ("FLOAT", "DOUBLE")

CONTAINERS = {
    "WAV": ".wav",
    "WAVEX": ".wav",
    "RF64": ".wav",
    "W64": ".w64",
    "FLAC": ".flac",
    "AIFF": ".aiff",
    "CAF": ".caf",
    "AU": ".au",
    "OGG": ".ogg",
    "MP3": ".mp3",
}
"""What stems are written in, with the file's suffix. libsndfile writes more, but of those some keep
neither the rate nor the length, and some need a second file beside the first."""

ALSO = {
    **dict.fromkeys(("WAV", "WAVEX", "RF64"), (".wav", ".wave", ".rf64")),
    "FLAC": (".flac",),
    "AIFF": (".aiff", ".aif", ".aifc"),
    "W64": (".w64",),
    "CAF": (".caf",),
    "AU": (".au", ".snd"),
}
"""Suffixes of songs that their stems keep; another one, or none, is not the container's."""

SHORT = ("WAV", "WAVEX", "AIFF", "AU")
"""Containers whose header holds the length in 32 bits."""

MOST_BYTES = (1 << 32) - (1 << 20)
"""Of samples in such a file; the rest is for tags and pictures."""


@dataclass(frozen=True)
class Encoding:
    """A container and a sample format that libsndfile writes."""

    format: str
    """The container in libsndfile's words, e.g. ``FLAC``."""
    subtype: str
    """The sample format in libsndfile's words, e.g. ``PCM_24``."""
    suffix: str
    """Of the file name, with its dot."""

    @property
    def bits(self) -> int | None:
        """Bits of a sample in an integer format that keeps every bit, else None."""
        return BITS.get(self.subtype)

    @property
    def step(self) -> float:
        """The distance of neighbouring sample values in such a format, else 0."""
        return 2.0 ** (1 - self.bits) if self.bits else 0.0

    @property
    def lossless(self) -> bool:
        """Whether the samples survive writing and reading."""
        return self.bits is not None or self.subtype in FLOATS

    def for_length(self, samples: int, channels: int) -> Encoding:
        """This, or RF64 where so many samples are more than a header of 32 bits can tell."""
        if self.format not in SHORT or samples * channels * self.sample_bytes <= MOST_BYTES:
            return self
        return Encoding("RF64", self.subtype, ".wav")

    @property
    def sample_bytes(self) -> int:
        """Of one sample on the disk, where the container does not pack them."""
        return -(-(self.bits or {"FLOAT": 32, "DOUBLE": 64}.get(self.subtype, 8)) // 8)

    def as_float(self) -> Encoding:
        """32-bit float in this container, or in WAV where it has none."""
        if soundfile.check_format(self.format, "FLOAT"):
            return replace(self, subtype="FLOAT")
        return Encoding("WAV", "FLOAT", ".wav")


def choose(source: Encoding | None, format: str | None, subtype: str | None) -> Encoding:
    """The encoding of stems: the source's own where that is lossless and among
    :data:`CONTAINERS`, else FLAC of 24 bits.

    Args:
        source: of the song; None where the song is an array.
        format: the container that was asked for, in any case, e.g. ``flac``, ``wav``.
        subtype: the sample format that was asked for, e.g. ``PCM_16``, ``float``.

    Raises:
        AudioError: there is no such container, or it has no such sample format.
    """
    if source and not (source.lossless and source.format in CONTAINERS):
        source = None
    container = _container(format) if format else source.format if source else "FLAC"
    suffix = CONTAINERS[container]
    if source and source.suffix.lower() in ALSO.get(container, ()):
        suffix = source.suffix  # as its owner writes it
    known = soundfile.available_subtypes(container)
    if subtype:
        if subtype.upper() not in known:
            raise AudioError(
                f"subtype for {container} must be one of {', '.join(known)}; {subtype!r} came"
            )
        return Encoding(container, subtype.upper(), suffix)
    wanted = (source.subtype if source else "", "PCM_24")
    default = soundfile.default_subtype(container) or next(iter(known))
    return Encoding(container, next((sub for sub in wanted if sub in known), default), suffix)


def require_clip(clip: str) -> None:
    """Refuses an unknown way of clipping.

    Raises:
        AudioError: clip is not one of :data:`Clip`.
    """
    if clip not in get_args(Clip):
        raise AudioError(f"clip must be one of {', '.join(get_args(Clip))}; {clip!r} came")


def require_format(format: str | None) -> None:
    """Refuses an unknown container.

    Raises:
        AudioError: format is none of :data:`CONTAINERS`.
    """
    if format:
        _container(format)


def _container(name: str) -> str:
    container = {"AIF": "AIFF"}.get(name.upper(), name.upper())
    if container not in CONTAINERS:
        known = ", ".join(CONTAINERS).lower()
        raise AudioError(f"format must be one of {known}; {name!r} came")
    return container
