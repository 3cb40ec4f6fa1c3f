"""Reads songs that libsndfile cannot (M4A, AAC, MP4, WMA, Opus in Matroska) with FFmpeg.

PyAV is an extra and is imported only when libsndfile fails. FFmpeg is limited to the demuxers
in OPTIONS and to local files, so an untrusted file cannot select another demuxer or make FFmpeg
read another file or address.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bsmamba2.audio.fifo import Fifo
from bsmamba2.errors import AudioError, MissingExtra, first_line
from bsmamba2.installation import install_command

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bsmamba2.audio.array import Exact

_SUFFIXES = ".3gp .aac .m4a .m4b .mka .mkv .mov .mp4 .webm .wma"
SUFFIXES = frozenset(_SUFFIXES.split())
"""Common suffixes of songs that only FFmpeg reads."""

OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": "aac,aiff,ape,asf,caf,dsf,flac,matroska,mov,mp3,ogg,tta,wav,webm,wv",
}


class AvFile:
    """A song decoded by PyAV, with the methods of ``soundfile.SoundFile`` that we use.

    Raises:
        MissingExtra: PyAV is not installed.
        AudioError: FFmpeg cannot read the file, or it contains no audio.
    """

    format = "FFmpeg"
    """Not a container of libsndfile, so stems are written like those of a lossy song."""

    def __init__(self, path: Path) -> None:
        self._av = import_av(path)
        self._path = path
        try:
            self._container = self._av.open(str(path), options=OPTIONS)
        except (self._av.error.FFmpegError, OSError, ValueError) as error:
            raise AudioError(
                f"{path} is not audio that FFmpeg reads ({first_line(error)}): convert it to WAV "
                "or FLAC first"
            ) from None
        streams = self._container.streams.audio
        if not streams:
            self.close()
            raise AudioError(f"{path} contains no audio: choose a file with audio")
        self._stream = streams[0]
        context = self._stream.codec_context
        if context is None:
            self.close()
            raise AudioError(
                f"{path} contains audio that FFmpeg cannot decode: convert it to WAV first"
            )
        self.samplerate = int(context.sample_rate or 0)
        self.channels = int(context.layout.nb_channels)
        self.subtype = str(context.name)
        self._arrived: Fifo[np.float64] = Fifo(self.channels, np.float64)
        self._frames = self._decoded()

    @property
    def frames(self) -> int:
        """The length in samples according to the container; 0 if it states none."""
        stream = self._stream
        if stream.duration is not None and stream.time_base is not None:
            return int(stream.duration * stream.time_base * self.samplerate)
        if self._container.duration is not None:
            return int(self._container.duration * self.samplerate / self._av.time_base)
        return 0

    def read(self, frames: int, dtype: str = "float64", always_2d: bool = True) -> Exact:
        """Reads the next (frames, channels); fewer at the end.

        Raises:
            AudioError: the rest of the file cannot be decoded.
        """
        while len(self._arrived) < frames:
            samples = next(self._frames, None)
            if samples is None:
                break
            self._arrived.append(samples)
        return self._arrived.take(min(frames, len(self._arrived))).T

    def close(self) -> None:
        self._container.close()

    def _decoded(self) -> Iterator[Exact]:
        """Yields (channels, n) for each frame, in the layout and at the rate of the first frame."""
        resampler = self._av.AudioResampler("dblp", rate=self.samplerate)
        try:
            for frame in self._container.decode(self._stream):
                for part in resampler.resample(frame):
                    yield self._same_channels(part.to_ndarray())
            for part in resampler.resample(None):
                yield self._same_channels(part.to_ndarray())
        except (self._av.error.FFmpegError, ValueError) as error:
            raise AudioError(
                f"{self._path} cannot be read to the end ({first_line(error)}): it is damaged; "
                "get a new copy"
            ) from None

    def _same_channels(self, samples: Any) -> Exact:
        if samples.shape[0] != self.channels:
            raise ValueError("the number of channels changes")
        checked: Exact = samples
        return checked


def import_av(path: Path) -> Any:
    """Imports PyAV, which is needed to read the file at ``path``.

    Raises:
        MissingExtra: PyAV is not installed; the message contains the command that installs it.
    """
    try:
        import av
    except ImportError:
        raise MissingExtra(
            f"{path} can only be read with FFmpeg: {install_command('av')}, or convert it to WAV "
            "or FLAC first"
        ) from None
    return av
