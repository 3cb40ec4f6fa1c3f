"""Reads songs with FFmpeg: those that libsndfile does not read, or not to their end.

PyAV is an extra and is imported only for such a song. FFmpeg is limited to the demuxers in OPTIONS
and to local files, so an untrusted file cannot select another demuxer or make FFmpeg read another
file or address.
"""

from __future__ import annotations

import logging
import os
from fractions import Fraction
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from bsmamba2.audio.fifo import Fifo
from bsmamba2.errors import AudioError, MissingExtra, first_line
from bsmamba2.files.joined_files import Window
from bsmamba2.files.regular_file import open_regular
from bsmamba2.installation import install_command

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bsmamba2.audio.array import Exact
    from bsmamba2.files.structure import Structure

log = logging.getLogger("bsmamba2")

OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": "aac,aiff,ape,asf,au,caf,dsf,flac,matroska,mov,mp3,ogg,tta,w64,wav,webm,wv",
}

CONTAINERS = {"wav": "WAV", "flac": "FLAC", "aiff": "AIFF", "caf": "CAF"}
"""libsndfile's names of FFmpeg's containers of lossless songs."""

SUBTYPES = {
    "pcm_u8": "PCM_U8",
    "pcm_s8": "PCM_S8",
    "pcm_s16": "PCM_16",
    "pcm_s24": "PCM_24",
    "pcm_s32": "PCM_32",
    "pcm_f32": "FLOAT",
    "pcm_f64": "DOUBLE",
}
"""libsndfile's names of FFmpeg's sample formats, without their byte order."""

LOSSLESS = ("alac", "ape", "flac", "tta", "wavpack")
"""Codecs whose every damaged frame can be recognised and is an error."""

ESTIMATED = ("aac", "asf", "mp3", "ogg")
"""Containers whose length FFmpeg estimates, or whose length says nothing about missing bytes."""

EXACT = ("aiff", "au", "caf", "flac", "tta", "w64", "wav", "wv")
"""Containers that count the samples of a lossless song."""

TOLERANCE_S = 0.25
"""How much shorter than stated a song may be: containers round, and encoders add padding."""


class AvFile:
    """A song decoded by PyAV, with the methods of ``soundfile.SoundFile`` that we use.

    The samples have the rate and channels of the start, also if they change later. Files that were
    joined are decoded one after the other.

    Args:
        path: the song.
        structure: what its bytes state.
        why: what is said about the file if PyAV is missing, after its path.
        sample_rate: Hz of the samples that are returned. Default: the song's own.

    Raises:
        MissingExtra: PyAV is not installed.
        AudioError: FFmpeg cannot read the file, or it contains no audio.
    """

    def __init__(self, path: Path, structure: Structure, why: str, sample_rate: int = 0) -> None:
        self._av = import_av(path, why)
        self._path = path
        self._structure = structure
        self._others: list[Window] = []
        """The files that were joined and are not open yet, if there are several."""
        self._joined: BinaryIO | None = None
        self._container: Any = None
        if len(structure.starts) > 1:
            self._joined = open_regular(path)
            stops = (*structure.starts, os.fstat(self._joined.fileno()).st_size)
            self._others = [Window(self._joined, *span) for span in pairwise(stops)]
        try:
            context = self._open()
        except AudioError:
            self.close()
            raise
        codec = str(context.name)
        self.samplerate = sample_rate or int(context.sample_rate or 0)
        self.channels = int(context.layout.nb_channels)
        self.format, self.subtype = _encoding(self._format, codec, context)
        self._layout = context.layout
        self._arrived: Fifo[np.float64] = Fifo(self.channels, np.float64)
        self._frames = self._decoded()
        self._found: Iterator[Any] | None = None
        """The decoded frames after a seek."""
        self._kind: tuple[str, int, str] | None = None
        """The layout, rate and format of the last frame."""
        self._end_s = 0.0
        """Where the decoded samples of the open file end, in the container's time."""
        self._count = 0
        """Decoded samples."""

    def _open(self) -> Any:
        """Opens the song, or the next of the files that were joined; returns its codec's context.

        Raises:
            AudioError: FFmpeg cannot read it, or it contains no audio.
        """
        # With its protocol, the part of a name before a colon is not taken for one.
        source = self._others.pop(0) if self._others else f"file:{self._path}"
        try:
            self._container = self._av.open(source, options=OPTIONS)
        except (self._av.error.FFmpegError, OSError, ValueError) as error:
            raise AudioError(
                f"{self._path} is not audio that libsndfile or FFmpeg reads ({first_line(error)}): "
                "convert it to WAV or FLAC first"
            ) from None
        self._stream: Any = self._container.streams.best("audio")
        if self._stream is None:
            raise AudioError(f"{self._path} contains no audio: choose a file with audio")
        context = self._stream.codec_context
        if context is None:
            raise AudioError(
                f"{self._path} contains audio that FFmpeg cannot decode: convert it to WAV first"
            )
        if context.name in LOSSLESS:
            context.options = {"err_detect": "crccheck+explode"}
        return context

    @property
    def _format(self) -> str:
        """FFmpeg's name of the container."""
        return str(self._container.format.name)

    @property
    def frames(self) -> int:
        """The length in samples according to the container; 0 if it states none."""
        if self._structure.seconds is not None:
            return int(self._structure.seconds * self.samplerate)
        return int((self._stated_s() or 0.0) * self.samplerate)

    @property
    def speakers(self) -> list[str]:
        """FFmpeg's names of the channels, such as ``FL``."""
        return [str(channel.name) for channel in self._layout.channels]

    def read(self, frames: int, dtype: str = "float64", always_2d: bool = True) -> Exact:
        """Reads the next (frames, channels); fewer at the end.

        Raises:
            AudioError: the rest of the file cannot be decoded, or the file is shorter than stated.
        """
        while len(self._arrived) < frames:
            samples = next(self._frames, None)
            if samples is None:
                break
            self._count += samples.shape[1]
            self._arrived.append(samples)
        return self._arrived.take(min(frames, len(self._arrived))).T

    def can_seek(self) -> bool:
        """Whether :meth:`seek` can find a sample: the container's clock counts samples."""
        is_one_part = len(self._structure.starts) == 1 and self._structure.seconds is None
        is_one_part &= not self._structure.packets_may_fail
        counts = self._stream.time_base == Fraction(1, self.samplerate)
        return is_one_part and counts and self._format not in ESTIMATED

    def seek(self, frames: int) -> int:
        """Moves to a sample or to one before it, if nothing was read yet.

        Returns:
            The position in samples.

        Raises:
            OSError: the time stamps do not lead there; the file must be opened again.
        """
        try:
            start = next(self._undamaged_frames())
            self._container.seek(start.pts + frames, stream=self._stream)
            found = self._undamaged_frames()
            frame = next(found)
            at = int(frame.pts - start.pts)
        except (self._av.error.FFmpegError, StopIteration, TypeError) as error:
            raise OSError(first_line(error)) from None
        if not 0 <= at <= frames:
            raise OSError(f"it leads to sample {at}")
        self._found = chain([frame], found)
        self._count = at
        return at

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
        if self._joined is not None:
            self._joined.close()

    def _decoded(self) -> Iterator[Exact]:
        """Yields (channels, n) for each frame, in the layout and at the rate of the start."""
        yield from self._decoded_file()
        while self._others:
            self._container.close()
            self._open()
            yield from self._decoded_file()

    def _decoded_file(self) -> Iterator[Exact]:
        """Yields the frames of the file that is open, and requires it to be whole."""
        start, convert = self._count, None
        self._end_s = 0.0
        try:
            for frame in self._found or self._undamaged_frames():
                if frame.time is not None:
                    self._end_s = frame.time + frame.samples / frame.sample_rate
                kind = frame.layout.name, frame.sample_rate, frame.format.name
                if kind != self._kind:
                    if convert is not None:
                        yield from (self._samples(part) for part in convert.resample(None))
                    convert = None
                    if self._kind:
                        log.warning(
                            "%s changes to %s at %d Hz after %.1f s: it is converted to its start's"
                            " rate and channels",
                            self._path.name, *kind[:2], self._count / self.samplerate,
                        )  # fmt: skip
                    self._kind = kind
                convert = convert or self._converter(frame)
                yield from (self._samples(part) for part in convert.resample(frame))
            if convert is not None:
                yield from (self._samples(part) for part in convert.resample(None))
        except (self._av.error.FFmpegError, ValueError) as error:
            if self._count == start or not self._reached_the_end(failed=True):
                raise AudioError(
                    f"{self._path} cannot be read to the end (FFmpeg fails after "
                    f"{self._count / self.samplerate:.1f} s: {first_line(error)}): it is damaged; "
                    "get a new copy"
                ) from None
            log.warning("%s has damaged data after its end", self._path.name)
        if not self._reached_the_end():
            raise AudioError(
                f"{self._path} ends after {(self._count - start) / self.samplerate:.3f} s, but "
                f"states {self.frames / self.samplerate:.3f} s: it is incomplete; get a new copy"
            )

    def _converter(self, frame: Any) -> Any:
        """Returns what converts frames of this kind."""
        same = frame.layout.nb_channels == self.channels
        return self._av.AudioResampler("dbl", None if same else self._layout, self.samplerate)

    def _samples(self, frame: Any) -> Exact:
        """Returns (channels, n). Planar frames of 8 channels make PyAV read beyond their planes."""
        samples: Exact = frame.to_ndarray().reshape(-1, self.channels).T
        return samples

    def _undamaged_frames(self) -> Iterator[Any]:
        """Yields the decoded frames; bytes between the frames of an MP3 are passed over."""
        for packet in self._container.demux(self._stream):
            try:
                yield from packet.decode()
            except self._av.error.InvalidDataError:
                if not self._structure.packets_may_fail:
                    raise

    def _reached_the_end(self, failed: bool = False) -> bool:
        """Whether the open file was decoded to its end.

        Args:
            failed: whether FFmpeg failed, so that even an estimated length counts.
        """
        if self._structure.seconds is not None:  # of all files together
            decoded_s = self._count / self.samplerate
            return bool(self._others) or decoded_s >= self._structure.seconds - TOLERANCE_S
        stated_s, name = self._stated_s(), self._format
        if stated_s is None or (name in ESTIMATED and not failed):
            return True
        counts = name in EXACT and self._stream.time_base == Fraction(1, self._stream.rate)
        tolerance_s = 0.5 / self._stream.rate if counts else TOLERANCE_S
        return self._end_s >= stated_s - tolerance_s

    def _stated_s(self) -> float | None:
        stream = self._stream
        if stream.duration is not None and stream.time_base is not None:
            return float(stream.duration * stream.time_base)
        if self._container.duration is not None:
            return float(self._container.duration / self._av.time_base)
        return None


def import_av(path: Path, why: str) -> Any:
    """Imports PyAV, which is needed to read the file at ``path``.

    Raises:
        MissingExtra: PyAV is not installed; the message contains the command that installs it.
    """
    try:
        import av
    except ImportError:
        raise MissingExtra(
            f"{path} {why}: {install_command('av')}, or convert it to WAV or FLAC first"
        ) from None
    return av


def _encoding(container: str, codec: str, context: Any) -> tuple[str, str]:
    """Returns libsndfile's names of a lossless container and sample format, else FFmpeg's."""
    if codec == "flac":
        bits = context.format.bits if context.format.name.startswith("s16") else 24
        return "FLAC", f"PCM_{bits}"
    known = SUBTYPES.get(codec.removesuffix("le").removesuffix("be"))
    if known and container in CONTAINERS:
        return CONTAINERS[container], known
    return "FFmpeg", codec
