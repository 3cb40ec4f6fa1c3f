"""The containers and sample formats of stems."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import soundfile

from bsmamba2.errors import AudioError, not_one_of
from bsmamba2.files.bitrate import quality_of
from bsmamba2.files.speakers import IMPLIED_MASKS

Clip: TypeAlias = Literal["float", "clip", "error"]
"""What to do if samples exceed ±1 in a format that cannot hold them: write the file as 32-bit
float, clip the samples, or raise an error."""

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
"""Lossless integer formats."""

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
"""Containers for stems, with the file's suffix. libsndfile writes others too, but some of them lose
the rate or the length, and some need a second file."""

SUFFIXES = {
    **dict.fromkeys(("WAV", "WAVEX", "RF64"), (".wav", ".wave", ".rf64")),
    "FLAC": (".flac",),
    "AIFF": (".aiff", ".aif", ".aifc"),
    "W64": (".w64",),
    "CAF": (".caf",),
    "AU": (".au", ".snd"),
}
"""Suffixes that belong to each container; stems keep them from their song."""

FORMATS = {
    ".wav": ("wav", None),
    ".wave": ("wav", None),
    ".rf64": ("rf64", None),
    ".w64": ("w64", None),
    ".flac": ("flac", None),
    ".aiff": ("aiff", None),
    ".aif": ("aiff", None),
    ".aifc": ("aiff", None),
    ".caf": ("caf", None),
    ".au": ("au", None),
    ".snd": ("au", None),
    ".ogg": ("ogg", None),
    ".oga": ("ogg", None),
    ".opus": ("ogg", "opus"),
    ".mp3": ("mp3", None),
}
"""The container that the suffix of a file stands for, and the sample format if it implies one."""

SIZED_IN_32_BITS = ("WAV", "WAVEX", "AIFF", "AU")
"""Containers whose header stores the length in 32 bits."""

MAX_BYTES = (1 << 32) - (1 << 20)
"""The most bytes of samples in such a file; the rest of 4 GiB is reserved for tags and pictures."""


MAX_VORBIS_RATE = 200_000
"""Hz; libsndfile does not notice that libvorbis refuses more, and crashes."""


@dataclass(frozen=True)
class Encoding:
    """A container and a sample format that libsndfile writes."""

    format: str
    """libsndfile's name of the container, e.g. ``FLAC``."""
    subtype: str
    """libsndfile's name of the sample format, e.g. ``PCM_24``."""
    suffix: str
    """The suffix of the file name, with its dot."""
    bitrate: float | None = None
    """kbit/s of a lossy format; None for libsndfile's default."""

    @property
    def bits(self) -> int | None:
        """Bits per sample in a lossless integer format, otherwise None."""
        return BITS.get(self.subtype)

    @property
    def step(self) -> float:
        """The difference of adjacent sample values in such a format, otherwise 0."""
        return 2.0 ** (1 - self.bits) if self.bits else 0.0

    @property
    def lossless(self) -> bool:
        """Whether writing and reading leaves the samples unchanged."""
        return self.bits is not None or self.subtype in FLOATS

    def for_length(self, samples: int, channels: int) -> Encoding:
        """Returns this encoding, or RF64 if its header cannot state so many samples."""
        total_bytes = samples * channels * self.sample_bytes
        if self.format not in SIZED_IN_32_BITS or total_bytes <= MAX_BYTES:
            return self
        return Encoding("RF64", self.subtype, ".wav")

    def with_speakers(self, mask: int | None, channels: int) -> Encoding:
        """Returns this encoding, or WAVEX if only that can state the speakers of the channels."""
        is_usual = mask is None or (channels <= 2 and mask == IMPLIED_MASKS[channels])
        if self.format != "WAV" or is_usual or not soundfile.check_format("WAVEX", self.subtype):
            return self
        return replace(self, format="WAVEX")

    def writer_options(self, sample_rate: int, channels: int) -> dict[str, Any]:
        """Returns the arguments of ``soundfile.SoundFile`` for this encoding.

        Raises:
            AudioError: the format has no such bit rate.
        """
        options = {"format": self.format, "subtype": self.subtype}
        if self.bitrate is None:
            return options
        return options | quality_of(self.subtype, sample_rate, channels, self.bitrate)

    @property
    def sample_bytes(self) -> int:
        """Bytes per sample on the disk, without compression."""
        return -(-(self.bits or {"FLOAT": 32, "DOUBLE": 64}.get(self.subtype, 8)) // 8)

    def as_float(self) -> Encoding:
        """Returns 32-bit float in this container, or in WAV if the container lacks it."""
        if soundfile.check_format(self.format, "FLOAT"):
            return replace(self, subtype="FLOAT")
        return Encoding("WAV", "FLOAT", ".wav")


def choose(
    source: Encoding | None,
    format: str | None,
    subtype: str | None,
    bitrate: float | None = None,
) -> Encoding:
    """Chooses the encoding of stems: the song's if it is lossless and in :data:`CONTAINERS`,
    otherwise 24-bit FLAC.

    Args:
        source: encoding of the song; None if the song is an array.
        format: requested container, in upper or lower case, e.g. ``flac``, ``wav``.
        subtype: requested sample format, in upper or lower case, e.g. ``PCM_16``, ``float``.
        bitrate: kbit/s of a lossy format.

    Raises:
        AudioError: the container is unknown or does not support the sample format, or a lossless
            format was given a bit rate.
    """
    chosen = _choose(source, format, subtype)
    if bitrate is not None and chosen.lossless:
        raise AudioError(
            f"bitrate must be None for {chosen.format} {chosen.subtype}; got {bitrate:g}: only "
            "lossy formats (mp3, ogg) have bit rates"
        )
    return replace(chosen, bitrate=bitrate)


def require_support(encoding: Encoding, sample_rate: int, channels: int) -> None:
    """Requires libsndfile to write so many channels at a rate, by opening such a file in memory.

    Raises:
        AudioError: it does not, or not at the bit rate.
    """
    try:
        if encoding.subtype == "VORBIS" and sample_rate > MAX_VORBIS_RATE:
            raise ValueError("libsndfile would crash")
        options = encoding.writer_options(sample_rate, channels)
        with soundfile.SoundFile(io.BytesIO(), "w", sample_rate, channels, **options) as file:
            file.write(np.zeros((1, channels)))
    except (soundfile.LibsndfileError, TypeError, ValueError):
        rates = ": Opus has 8000, 12000, 16000, 24000 and 48000 Hz"
        raise AudioError(
            f"{encoding.format} {encoding.subtype} cannot hold {channels} channels at "
            f"{sample_rate} Hz{rates if encoding.subtype == 'OPUS' else ''}: choose another format "
            "or subtype"
        ) from None


def _choose(source: Encoding | None, format: str | None, subtype: str | None) -> Encoding:
    if source and not (source.lossless and source.format in CONTAINERS):
        source = None
    container = _container(format) if format else source.format if source else "FLAC"
    suffix = CONTAINERS[container]
    if source and source.suffix.lower() in SUFFIXES.get(container, ()):
        suffix = source.suffix  # keep the spelling of the song's suffix
    known = soundfile.available_subtypes(container)
    if subtype:
        if subtype.upper() not in known:
            raise AudioError(not_one_of(f"subtype for {container}", known, subtype))
        return Encoding(container, subtype.upper(), suffix)
    preferred = (source.subtype if source else "", "PCM_24")
    default = soundfile.default_subtype(container) or next(iter(known))
    return Encoding(container, next((sub for sub in preferred if sub in known), default), suffix)


def require_clip(clip: str) -> None:
    """Requires a known value of ``clip``.

    Raises:
        AudioError: clip is not one of :data:`Clip`.
    """
    if clip not in get_args(Clip):
        raise AudioError(not_one_of("clip", get_args(Clip), clip))


def require_format(format: str | None) -> None:
    """Requires a known container, or None.

    Raises:
        AudioError: format is not one of :data:`CONTAINERS`.
    """
    if format:
        _container(format)


def _container(name: str) -> str:
    container = {"AIF": "AIFF"}.get(name.upper(), name.upper())
    if container not in CONTAINERS:
        raise AudioError(not_one_of("format", map(str.lower, CONTAINERS), name))
    return container
