"""Separation as people call it: arrays to arrays, a file to files."""

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
from bsmamba2.models.loaded import Loaded
from bsmamba2.pipeline.progress import Progress
from bsmamba2.pipeline.song_pipeline import SongPipeline
from bsmamba2.pipeline.step_stream import StepStream
from bsmamba2.stems import Stems
from bsmamba2.stream import Stream

if TYPE_CHECKING:
    import numpy.typing as npt

    from bsmamba2.batch.plan import FilePlan
    from bsmamba2.formats.manifest import Manifest
    from bsmamba2.formats.protocols import Engine


class Separator:
    """A model on a device, ready to separate.

    It may be shared between threads: it keeps nothing between calls but the model, and each call
    returns what it would alone. Whether calls at once are faster than one after the other depends
    on the device; on a CPU one call takes all cores already. A stream belongs to one thread.

    Args:
        model: the path of an .onnx, .ckpt, .safetensors or .engine; an
            :class:`~bsmamba2.formats.protocols.Engine` is used as it is. None: the shipped model.
        device: ``auto``, ``cpu``, ``cuda[:N]`` or ``tensorrt[:N]``; an engine has its own.
        trust_engine: loads a TensorRT engine that this user did not build; it can run any code.

    Raises:
        ModelError: the model cannot be found or used.
        DeviceError: the device is not there, or cannot run the model.
        MissingExtra: what runs such a model is not installed.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Engine | None = None,
        device: str = "auto",
        *,
        trust_engine: bool = False,
    ) -> None:
        self._loaded = Loaded(model, device, trust_engine)
        self._engine = self._loaded.engine

    @property
    def manifest(self) -> Manifest:
        """What the model makes, and at which rate it works."""
        return self._engine.manifest

    @property
    def device(self) -> str:
        """Where it runs: ``cpu``, ``cuda:0``."""
        return self._engine.device

    def prewarm(self) -> None:
        """Runs a chunk of noise, so that the first song does not wait for what first runs do.

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
                scale ±1. More than two channels: see :mod:`bsmamba2.channels`.
            sample_rate: Hz, 8000 to 384000.
            stems: which to return; the others take no memory. Default: all.
            overlap: of neighbouring chunks, a fraction in [0, 1). Default: the model's.
            channels_first: which way an array of two dimensions lies. Default: the smaller
                dimension is the channels.
            progress: see :data:`Progress`.
            cancel: set from any thread, it stops the work before the next run of the model,
                with :class:`bsmamba2.Cancelled` and nothing half-written.

        Returns:
            The stems and the residual, float32, at the rate and in the layout of ``audio``.

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
        """Separates a file into files, in memory that does not grow with its length.

        Args:
            path: of the song, in any format that libsndfile reads, or FFmpeg with the extra ``av``.
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
            template: what the files are called, see :class:`bsmamba2.files.naming.Template`.
            overwrite: whether existing files may be replaced; the song itself never is.
            record: whether a small JSON beside the stems says what they were made of, for a later
                call with ``resume``.
            resume: whether to leave stems as they are that such a record says are of this song,
                model and options; and to make those again that are missing. Records as well.
            progress: see :data:`Progress`.
            cancel: set from any thread, it stops the work before the next run of the model,
                with :class:`bsmamba2.Cancelled` and nothing half-written.

        Returns:
            The path of each stem that was written. The files of all stems sum to the song: to the
            bit where all are in integers, to 1e-6 where one left ±1 and became 32-bit float. What
            ``clip`` cut off is missing from the sum.

        Raises:
            AudioError: the song cannot be read, an argument is out of range, or a file exists or
                cannot be written.
            ModelError: the model's output is not finite, or it has no such stem.
        """
        wanted = (stems,) if isinstance(stems, str) else None if stems is None else tuple(stems)
        asked = OutputOptions(wanted, overlap, format, subtype, clip, template)
        folder = None if directory is None else Path(directory)
        plan = asked.plan(Path(path), folder, self.manifest)
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
        """As :meth:`separate_file`, of a song that was planned before with this model."""
        made = plan.record.found() if resume else None
        if made and made.all_there:
            return dict(made.outputs)
        with SongFile(plan.song) as song, _ahead(1 if self.device == "cpu" else 2) as pool:
            separation = self._by_chunks(
                song.sample_rate, song.channels, plan.overlap, plan.encoding.step, pool, cancel
            )
            files = StemFiles(
                plan.directory,
                plan.names,
                plan.encoding,
                song.sample_rate,
                song.channels,
                clip=plan.clip,
                overwrite=overwrite or made is not None,
                song=song.path,
                tags=read_tags(song.path),
            )
            with files:
                blocks, length = song.blocks(), song.samples
                for outputs in separation.run(blocks, length, progress, cancel):
                    files.write(outputs)
                known = self.manifest.outputs
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
        """A stream, to push audio into as it comes.

        Without ``lookahead_ms`` it runs the chunks of a separation: the same output to the bit as
        all at once, the best quality, and a chunk of latency. With it, a streaming model carries
        its memory from block to block for ever and hears so much of what comes next: the latency
        is about block and lookahead together, the work 1 + lookahead / block times that of all at
        once, and what it costs in quality depends on the model.

        Args:
            sample_rate: Hz, 8000 to 384000.
            channels: of every push.
            block_ms: done at a time, rounded to whole frames. Default: as ``lookahead_ms``.
            lookahead_ms: heard beyond the block, rounded to whole frames. The model must be a
                checkpoint of a size that is shipped, or exported with ``--streaming``.
            overlap: of neighbouring chunks, where there is no lookahead. Default: the model's.
            cancel: set from any thread, it stops a push or flush before the next run of the model,
                with :class:`bsmamba2.Cancelled`.

        Raises:
            AudioError: an argument is out of range.
            ModelError: the model has no graph for streams.
        """
        manifest = self.manifest
        if lookahead_ms is None:
            if block_ms is not None:
                raise AudioError(
                    f"block_ms must be given with lookahead_ms; {block_ms:g} came alone: without a "
                    "lookahead the stream runs the model's whole chunks"
                )
            return Stream(
                lambda: self._by_chunks(sample_rate, channels, overlap, cancel=cancel),
                manifest,
                sample_rate,
                channels,
            )
        if overlap is not None:
            raise AudioError(
                f"overlap must be given without lookahead_ms; {overlap:g} came: the steps of a "
                "stream do not overlap"
            )
        frame_ms = 1000 * manifest.hop / manifest.sample_rate
        block_ms = lookahead_ms if block_ms is None else block_ms
        schedule = Schedule.of_ms(block_ms, lookahead_ms, frame_ms)
        stepper = self._loaded.another_stepper()
        return Stream(
            lambda: SongPipeline(
                StepStream(stepper, schedule, channels, cancel), sample_rate, channels
            ),
            manifest,
            sample_rate,
            channels,
        )

    def _by_chunks(
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
        known = self.manifest.outputs
        names = wanted_stems(stems, known)
        rows = [known.index(name) for name in names]
        outputs = np.empty((len(names), channels, samples), np.float32)
        blocks = (mixture[:, at : at + BLOCK] for at in range(0, samples, BLOCK))
        done = 0
        # On a CPU the engine has every core already.
        with _ahead(0 if self.device == "cpu" else 2) as pool:
            separation = self._by_chunks(sample_rate, channels, overlap, pool=pool, cancel=cancel)
            for block in separation.run(blocks, samples, progress, cancel):
                outputs[..., done : done + block.shape[-1]] = block[rows]
                done += block.shape[-1]
        residual = self.manifest.residual if names == known else None
        return Stems(outputs, names, sample_rate, layout=layout, residual=residual, song=song)


@contextmanager
def _ahead(threads: int) -> Iterator[Executor | None]:
    """Threads that run the engine while what came out is resampled, added and written, or none.

    On a card there are two, so that an engine that has two runs in flight is given them. What was
    not begun is dropped where an exception ends the work.
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

    Loads the model anew; for many songs make one :class:`Separator`. For a long song
    :meth:`Separator.separate_file` needs less memory.

    Args:
        path: of the song, in any format that libsndfile reads.
        model, device: see :class:`Separator`.
        overlap: of neighbouring chunks, a fraction in [0, 1). Default: the model's.
        stems: which to return. Default: all.

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
