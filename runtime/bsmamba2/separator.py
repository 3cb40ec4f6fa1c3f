"""Separation of arrays into arrays, of files into files, and of streams."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import numpy as np

from bsmamba2.audio.array import Audio, Layout, arrange, to_float32
from bsmamba2.audio.schedule import Schedule
from bsmamba2.batch.plan import OutputOptions
from bsmamba2.errors import AudioError
from bsmamba2.files.encoding import Clip
from bsmamba2.files.naming import DEFAULT_TEMPLATE
from bsmamba2.files.song_file import BLOCK, SongFile
from bsmamba2.files.stem_files import StemFiles
from bsmamba2.files.tags import read_tags
from bsmamba2.formats.stem_names import wanted_stems
from bsmamba2.models.check import check_input
from bsmamba2.models.loaded_model import LoadedModel
from bsmamba2.pipeline.progress import Progress
from bsmamba2.pipeline.song_pipeline import SongPipeline
from bsmamba2.pipeline.step_stream import StepStream
from bsmamba2.stems import Stems
from bsmamba2.stream import Stream

if TYPE_CHECKING:
    import numpy.typing as npt

    from bsmamba2.batch.plan import FilePlan
    from bsmamba2.engines.protocols import Engine
    from bsmamba2.formats.manifest import Manifest


class Separator:
    """A model loaded on a device.

    Threads may share it: it keeps only the model between calls, and concurrent calls return the
    same results as sequential ones. Whether they are faster depends on the device; on a CPU one
    call already uses all cores. Use each stream from one thread at a time.

    Args:
        model: a name from ``bsmamba2 models``, or the path of an .onnx, .ckpt, .safetensors or
            .engine file. An :class:`~bsmamba2.engines.protocols.Engine` is used as it is. None: the
            shipped model.
        device: ``auto``, ``cpu``, ``cuda[:N]`` or ``tensorrt[:N]``. Must be ``auto`` for an engine,
            which already has a device.
        trust_engine: whether to load a TensorRT engine that this user did not build; it can run any
            code.

    Raises:
        ModelError: the model cannot be found or used.
        DeviceError: the device is absent, or cannot run the model.
        MissingExtra: the software that runs the model is not installed.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Engine | None = None,
        device: str = "auto",
        *,
        trust_engine: bool = False,
    ) -> None:
        self._model = LoadedModel(model, device, trust_engine)
        self._engine = self._model.engine

    @property
    def manifest(self) -> Manifest:
        """The model's stems, sample rate and other properties."""
        return self._engine.manifest

    @property
    def device(self) -> str:
        """The device that the model runs on, e.g. ``cpu``, ``cuda:0``."""
        return str(self._engine.device)

    def prewarm(self) -> None:
        """Runs a chunk of noise, so that the first song does not pay for first-run allocations.

        Raises:
            ModelError: the model cannot run.
        """
        manifest = self.manifest
        self._engine.run(check_input(0, manifest.channels, manifest.chunk))

    def __call__(
        self,
        audio: npt.ArrayLike,
        sample_rate: float,
        *,
        stems: Iterable[str] | None = None,
        overlap: float | None = None,
        channels_first: bool | None = None,
        progress: Progress | None = None,
        cancel: Event | None = None,
    ) -> Stems:
        """Separates an array.

        Args:
            audio: float32 or float64, (samples,), (channels, samples) or (samples, channels), full
                scale ±1. For more than two channels see :mod:`bsmamba2.audio.channels`.
            sample_rate: Hz, 8000 to 384000.
            stems: the stems to return; the others take no memory. Default: all.
            overlap: of neighbouring chunks, a fraction in [0, 1). Default: the model's.
            channels_first: whether a two-dimensional array is (channels, samples). Default: the
                smaller dimension is the channels.
            progress: see :data:`Progress`.
            cancel: set it from any thread to stop before the next run of the model, with
                :class:`bsmamba2.Cancelled`.

        Returns:
            The stems and the residual, float32, with the rate and layout of ``audio``.

        Raises:
            AudioError: the audio or an argument is out of range.
            ModelError: the model's output is not finite, or it has no such stem.
        """
        mixture, layout = arrange(audio, channels_first)
        return self._separate(
            mixture,
            sample_rate,
            layout,
            stems=stems,
            overlap=overlap,
            progress=progress,
            cancel=cancel,
        )

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
        template: str = DEFAULT_TEMPLATE,
        overwrite: bool = False,
        record: bool = False,
        resume: bool = False,
        progress: Progress | None = None,
        cancel: Event | None = None,
    ) -> dict[str, Path]:
        """Separates a file into files. Memory does not grow with the file's length.

        Args:
            path: the song, in any format that libsndfile or, with the extra ``av``, FFmpeg reads.
            directory: folder for ``song_vocals.flac`` and so on; created if it does not exist.
                Default: the song's own folder.
            stems: the stems to write. Default: all.
            overlap: of neighbouring chunks, a fraction in [0, 1). Default: the model's.
            format: a container of libsndfile, e.g. ``flac``, ``wav``. Default: the song's own if
                it is lossless, else FLAC.
            subtype: a sample format of it, e.g. ``PCM_16``, ``float``. Default: the song's own if
                the container has it, else 24 bits.
            clip: what to do with a stem that exceeds ±1 in an integer format: ``float`` writes
                that file as 32-bit float, ``clip`` clips it, ``error`` raises.
            template: names of the files, see :class:`bsmamba2.files.naming.Template`.
            overwrite: whether existing files may be replaced. The song itself is never replaced.
            record: whether to write a small JSON file next to the stems, for a later call with
                ``resume``.
            resume: whether to keep stems whose record matches this song, model and options, and
                write only missing ones. Writes records too.
            progress: see :data:`Progress`.
            cancel: set it from any thread to stop before the next run of the model, with
                :class:`bsmamba2.Cancelled` and no partial file left.

        Returns:
            The path of each written stem. The files of all stems sum to the song: bit for bit if
            all are integers, to 1e-6 if one exceeded ±1 and became 32-bit float. What ``clip`` cut
            off is missing from the sum.

        Raises:
            AudioError: the song cannot be read, an argument is out of range, or a file exists or
                cannot be written.
            ModelError: the model's output is not finite, or it has no such stem.
        """
        selected = (stems,) if isinstance(stems, str) else None if stems is None else tuple(stems)
        options = OutputOptions(selected, overlap, format, subtype, clip, template)
        folder = None if directory is None else Path(directory)
        plan = options.plan(Path(path), folder, self.manifest)
        return self.separate_planned(
            plan,
            overwrite=overwrite,
            record=record,
            resume=resume,
            progress=progress,
            cancel=cancel,
        )

    def separate_planned(
        self,
        plan: FilePlan,
        *,
        overwrite: bool = False,
        record: bool = False,
        resume: bool = False,
        progress: Progress | None = None,
        cancel: Event | None = None,
    ) -> dict[str, Path]:
        """Works like :meth:`separate_file`, for a song that was already planned with this model."""
        recorded = plan.record.read() if resume else None
        if recorded and recorded.is_complete:
            return dict(recorded.outputs)
        with SongFile(plan.song) as song, _engine_threads(1 if self.device == "cpu" else 2) as pool:
            pipeline = self._chunk_pipeline(
                song.sample_rate, song.channels, plan.overlap, plan.encoding.step, pool, cancel
            )
            files = StemFiles(
                plan.directory,
                plan.names,
                plan.encoding,
                song.sample_rate,
                song.channels,
                clip=plan.clip,
                overwrite=overwrite or recorded is not None,
                song=song.path,
                tags=read_tags(song.path),
            )
            with files:
                blocks, length = song.blocks(), song.samples
                for outputs in pipeline.run(blocks, length, progress, cancel):
                    files.write(outputs)
                known = self.manifest.available
                sizes = {known[row]: file for row, file in files.finish().items()}
                if record or resume:
                    plan.record.write(sizes)
                return {known[row]: path for row, path in files.publish().items()}

    def stream(
        self,
        sample_rate: float,
        channels: int = 2,
        *,
        block_ms: float | None = None,
        lookahead_ms: float | None = None,
        overlap: float | None = None,
        cancel: Event | None = None,
    ) -> Stream:
        """Opens a stream that separates audio as it arrives.

        Without ``lookahead_ms`` it runs the same chunks as for a whole song: bit-identical output,
        the best quality, and one chunk of latency. With it, a streaming model carries its
        states from block to block and sees ``lookahead_ms`` beyond each block. The latency is about
        block plus lookahead, the work is 1 + lookahead / block times that of a whole song, and the
        cost in quality depends on the model.

        Args:
            sample_rate: Hz, 8000 to 384000.
            channels: channels of every push.
            block_ms: audio finished by one step, rounded to whole frames. Default: equal to
                ``lookahead_ms``.
            lookahead_ms: audio seen beyond the block, rounded to whole frames. The model must be a
                checkpoint of a shipped size, or exported with ``--streaming``.
            overlap: of neighbouring chunks, without a lookahead. Default: the model's.
            cancel: set it from any thread to stop a push or flush before the next run of the
                model, with :class:`bsmamba2.Cancelled`.

        Raises:
            AudioError: an argument is out of range.
            ModelError: the model has no graph for streams.
        """
        manifest = self.manifest
        if lookahead_ms is None:
            if block_ms is not None:
                raise AudioError(
                    f"block_ms must be None without lookahead_ms; got {block_ms:g}: without a "
                    "lookahead the stream runs whole chunks"
                )
            return Stream(
                lambda: self._chunk_pipeline(sample_rate, channels, overlap, cancel=cancel),
                manifest,
                sample_rate,
                channels,
            )
        if overlap is not None:
            raise AudioError(
                f"overlap must be None with lookahead_ms; got {overlap:g}: the steps of a stream "
                "do not overlap"
            )
        frame_ms = 1000 * manifest.hop / manifest.sample_rate
        block_ms = lookahead_ms if block_ms is None else block_ms
        schedule = Schedule.of_ms(block_ms, lookahead_ms, frame_ms)
        stepper = self._model.new_stepper()
        return Stream(
            lambda: SongPipeline(
                StepStream(stepper, schedule, channels, cancel), sample_rate, channels
            ),
            manifest,
            sample_rate,
            channels,
        )

    def _chunk_pipeline(
        self,
        sample_rate: float,
        channels: int,
        overlap: float | None,
        step: float = 0.0,
        pool: Executor | None = None,
        cancel: Event | None = None,
    ) -> SongPipeline:
        overlap = self.manifest.overlap if overlap is None else overlap
        return SongPipeline.by_chunks(
            self._engine, sample_rate, channels, overlap, step, pool, cancel
        )

    def _separate(
        self,
        mixture: Audio,
        sample_rate: float,
        layout: Layout,
        *,
        song: str | None = None,
        stems: Iterable[str] | None = None,
        overlap: float | None = None,
        progress: Progress | None = None,
        cancel: Event | None = None,
    ) -> Stems:
        channels, samples = mixture.shape
        known = self.manifest.available
        names = wanted_stems(stems, known, self.manifest.outputs)
        rows = [known.index(name) for name in names]
        outputs = np.empty((len(names), channels, samples), np.float32)
        blocks = (mixture[:, at : at + BLOCK] for at in range(0, samples, BLOCK))
        done = 0
        # On a CPU the engine already uses every core.
        with _engine_threads(0 if self.device == "cpu" else 2) as pool:
            pipeline = self._chunk_pipeline(
                sample_rate, channels, overlap, pool=pool, cancel=cancel
            )
            for block in pipeline.run(blocks, samples, progress, cancel):
                outputs[..., done : done + block.shape[-1]] = block[rows]
                done += block.shape[-1]
        residual = self.manifest.residual if names == self.manifest.outputs else None
        return Stems(outputs, names, sample_rate, layout=layout, residual=residual, song=song)


@contextmanager
def _engine_threads(threads: int) -> Iterator[Executor | None]:
    """Opens a pool that runs the engine while earlier output is resampled, added and written.

    On a GPU it needs two threads, to keep two runs in flight. If an exception ends the work, runs
    that have not started are dropped. Yields None for 0 threads.
    """
    if not threads:
        yield None
        return
    pool = ThreadPoolExecutor(threads)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def separate(
    path: str | os.PathLike[str],
    model: str | os.PathLike[str] | Engine | None = None,
    device: str = "auto",
    overlap: float | None = None,
    stems: Iterable[str] | None = None,
) -> Stems:
    """Separates a file into arrays, (channels, samples) float32 at the song's rate.

    This loads the model on every call; for several songs create one :class:`Separator`. For long
    songs :meth:`Separator.separate_file` needs less memory.

    Args:
        path: the song, in any format that libsndfile or, with the extra ``av``, FFmpeg reads.
        model, device: as for :class:`Separator`.
        overlap: of neighbouring chunks, a fraction in [0, 1). Default: the model's.
        stems: the stems to return. Default: all.

    Raises:
        AudioError, ModelError, DeviceError, MissingExtra: see :class:`Separator`.
    """
    with SongFile(path) as song:
        separator = Separator(model, device)
        mixture = np.concatenate([to_float32(block) for block in song.blocks()], axis=1)
        return separator._separate(
            mixture,
            song.sample_rate,
            Layout.CHANNELS_FIRST,
            song=song.path.stem,
            stems=stems,
            overlap=overlap,
        )
