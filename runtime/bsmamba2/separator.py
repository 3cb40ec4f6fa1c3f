"""Separation as people call it: arrays to arrays, a file to files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from bsmamba2.array import Audio, Exact, Layout, arrange, to_float32
from bsmamba2.encoding import Clip, choose, require_clip
from bsmamba2.errors import DeviceError
from bsmamba2.files import BLOCK, SongFile, StemFiles
from bsmamba2.separation import Separation
from bsmamba2.stems import Stems, find_stem

if TYPE_CHECKING:
    import numpy.typing as npt

    from bsmamba2.engine import Engine
    from bsmamba2.manifest import Manifest

Progress: TypeAlias = Callable[[float, float], None]
"""Called as ``progress(done_seconds, total_seconds)`` of the song. Raising from it, e.g.
:class:`bsmamba2.Cancelled`, stops the work and leaves nothing half-written."""


class Separator:
    """A model on a device, ready to separate.

    Args:
        model: the path of an .onnx, .ckpt or .safetensors; an :class:`~bsmamba2.engine.Engine`
            is taken as it is. None asks for the shipped model, of which there is none yet.
        device: ``auto``, ``cpu``, ``cuda[:N]`` or ``tensorrt[:N]``; an engine has its own.

    Raises:
        ModelError: the model cannot be found or used.
        DeviceError: the device is not there, or cannot run the model.
        MissingExtra: what runs such a model is not installed.
    """

    def __init__(
        self, model: str | os.PathLike[str] | Engine | None = None, device: str = "auto"
    ) -> None:
        if model is None or isinstance(model, (str, os.PathLike)):
            # Here, since this is what imports an ONNX Runtime.
            from bsmamba2.models import open_engine

            self._engine: Engine = open_engine(model, device)
        elif device == "auto":
            self._engine = model
        else:
            raise DeviceError(
                f"device must be 'auto' with an engine, which has one; {device!r} came"
            )

    @property
    def manifest(self) -> Manifest:
        """What the model makes, and at which rate it works."""
        return self._engine.manifest

    @property
    def device(self) -> str:
        """Where it runs: ``cpu``, ``cuda:0``."""
        return self._engine.device

    def __call__(
        self,
        audio: npt.ArrayLike,
        sample_rate: float,
        *,
        overlap: float | None = None,
        progress: Progress | None = None,
    ) -> Stems:
        """Separates an array.

        Args:
            audio: float32 or float64, (samples,), (channels, samples) or (samples, channels), the
                smaller dimension being the channels; mono or stereo, full scale ±1.
            sample_rate: Hz, 8000 to 384000.
            overlap: of neighbouring chunks, a fraction in [0, 1). Default: the model's.
            progress: see :data:`Progress`.

        Returns:
            The stems and the residual, float32, at the rate and in the layout of ``audio``.

        Raises:
            AudioError: the audio or an argument is out of range.
            ModelError: the model's output is not finite.
        """
        mixture, layout = arrange(audio)
        return self._separate(mixture, sample_rate, layout, None, overlap, progress)

    def separate_file(
        self,
        path: str | os.PathLike[str],
        directory: str | os.PathLike[str] | None = None,
        *,
        stems: Iterable[str] | None = None,
        overlap: float | None = None,
        format: str | None = None,
        subtype: str | None = None,
        clip: Clip = "float",
        overwrite: bool = False,
        progress: Progress | None = None,
    ) -> dict[str, Path]:
        """Separates a file into files, in memory that does not grow with its length.

        Args:
            path: of the song, in any format that libsndfile reads.
            directory: for ``song_vocals.flac`` and so on; made where it does not exist. Default:
                the song's own folder.
            stems: which to write. Default: all.
            overlap: of neighbouring chunks, a fraction in [0, 1). Default: the model's.
            format: a container of libsndfile's, e.g. ``flac``, ``wav``. Default: the song's own
                where it is lossless, else FLAC.
            subtype: a sample format of it, e.g. ``PCM_16``, ``float``. Default: the song's own
                where the container has it, else 24 bits.
            clip: what becomes of a file that leaves ±1 where the format ends there: ``float``
                writes it as 32-bit float, ``clip`` clips it, ``error`` refuses.
            overwrite: whether existing files may be replaced; the song itself never is.
            progress: see :data:`Progress`.

        Returns:
            The path of each stem that was written. The files of all stems sum to the song: to the
            bit where all are in integers, to 1e-6 where one left ±1 and became 32-bit float. What
            ``clip`` cut off is missing from the sum.

        Raises:
            AudioError: the song cannot be read, an argument is out of range, or a file exists or
                cannot be written.
            ModelError: the model's output is not finite, or it has no such stem.
        """
        require_clip(clip)
        known = self.manifest.outputs
        wanted = known if stems is None else {find_stem(stem, known) for stem in stems}
        with SongFile(path) as song:
            encoding = choose(song.encoding, format, subtype)
            stream = self._stream(song.sample_rate, song.channels, overlap, encoding.step)
            with StemFiles(
                song.path.parent if directory is None else Path(directory),
                [f"{song.path.stem}_{stem}" if stem in wanted else None for stem in known],
                encoding,
                song.sample_rate,
                song.channels,
                clip=clip,
                overwrite=overwrite,
                song=song.path,
            ) as files:
                blocks = song.blocks()
                for outputs in _through(stream, blocks, song.sample_rate, song.samples, progress):
                    files.write(outputs)
                return {known[row]: path for row, path in files.publish().items()}

    def _stream(
        self, sample_rate: float, channels: int, overlap: float | None, step: float = 0.0
    ) -> Separation:
        overlap = self.manifest.overlap if overlap is None else overlap
        return Separation(self._engine, sample_rate, channels, overlap, step)

    def _separate(
        self,
        mixture: Audio,
        sample_rate: float,
        layout: Layout,
        song: str | None,
        overlap: float | None,
        progress: Progress | None,
    ) -> Stems:
        channels, samples = mixture.shape
        names = self.manifest.outputs
        stream = self._stream(sample_rate, channels, overlap)
        outputs = np.empty((len(names), channels, samples), np.float32)
        blocks = (mixture[:, at : at + BLOCK] for at in range(0, samples, BLOCK))
        done = 0
        for block in _through(stream, blocks, sample_rate, samples, progress):
            outputs[..., done : done + block.shape[-1]] = block
            done += block.shape[-1]
        residual = self.manifest.residual
        return Stems(outputs, names, sample_rate, layout=layout, residual=residual, song=song)


def separate(
    path: str | os.PathLike[str],
    model: str | os.PathLike[str] | Engine | None = None,
    device: str = "auto",
    overlap: float | None = None,
) -> Stems:
    """Separates a file into arrays, (channels, samples) float32 at the song's rate.

    Loads the model anew; for many songs make one :class:`Separator`. For a long song
    :meth:`Separator.separate_file` needs less memory.

    Args:
        path: of the song, in any format that libsndfile reads.
        model, device: see :class:`Separator`.
        overlap: of neighbouring chunks, a fraction in [0, 1). Default: the model's.

    Raises:
        AudioError, ModelError, DeviceError, MissingExtra: see :class:`Separator`.
    """
    with SongFile(path) as song:
        separator = Separator(model, device)
        mixture = np.concatenate([to_float32(block) for block in song.blocks()], axis=1)
        return separator._separate(
            mixture, song.sample_rate, Layout.CHANNELS_FIRST, song.path.stem, overlap, None
        )


def _through(
    stream: Separation,
    blocks: Iterable[npt.NDArray[Any]],
    sample_rate: float,
    samples: int,
    progress: Progress | None,
) -> Iterator[Exact]:
    """Pushes the blocks and flushes, telling after each how much has come out."""
    done = 0
    for block in blocks:
        outputs = stream.push(block)
        done += outputs.shape[-1]
        yield outputs
        if progress:
            progress(done / sample_rate, max(done, samples) / sample_rate)
    outputs = stream.flush()
    done += outputs.shape[-1]
    yield outputs
    if progress:
        progress(done / sample_rate, done / sample_rate)
