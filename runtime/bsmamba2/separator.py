"""Separation of arrays into arrays, of files into files, and of streams."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import numpy as np

from bsmamba2.audio.array import Audio, Layout, arrange, to_float32
from bsmamba2.batch.plan import OutputOptions
from bsmamba2.batch.separate_song import separate_song
from bsmamba2.devices.products import DEFAULT_SPEED
from bsmamba2.errors import AudioError
from bsmamba2.files.encoding import Clip
from bsmamba2.files.excerpt import Excerpt
from bsmamba2.files.naming import DEFAULT_TEMPLATE
from bsmamba2.files.song_file import BLOCK, SongFile
from bsmamba2.formats.stem_names import wanted_stems
from bsmamba2.models.check import check_input
from bsmamba2.models.combination import ModelSource, is_named, portable_source
from bsmamba2.models.combined_model import combine, leaves
from bsmamba2.models.loaded_model import LoadedModel
from bsmamba2.pipeline.mix import Mix
from bsmamba2.pipeline.open_pipeline import chunk_pipelines, step_pipelines
from bsmamba2.pipeline.overlap_add import engine_threads
from bsmamba2.pipeline.progress import Progress
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
        model: a name from ``bsmamba2 models``; the path of an .onnx, .ckpt, .safetensors or
            .engine file; several models, as an :class:`Ensemble`, a :class:`Chain` or the path of
            a .json file; or an :class:`~bsmamba2.engines.protocols.Engine`, which is used as it is.
            None: the shipped model.
        device: ``auto``, ``cpu``, ``cuda[:N]`` or ``tensorrt[:N]``. Must be ``auto`` for an engine,
            which already has a device.
        trust_engine: whether to load a TensorRT engine that this user did not build; it can run any
            code.
        load: whether to load the model onto its device now, or when it is first needed.
        speed: on a CPU, ``exact`` gives float32's result, and ``fast`` loses some quality where
            the processor has faster products, see :mod:`bsmamba2.devices.products`.
        config: MSST's yaml of a single checkpoint. Default: what the catalogue and the file state.
        precision: of a checkpoint's products: ``fp32``, or ``fp16`` or ``bf16``, which are faster
            on GPUs and lose some quality.

    A copy, and one pickled for another process, loads its model again; one made from an engine
    cannot be copied.

    Raises:
        ModelError: the model cannot be found or used.
        DeviceError: the device is absent, or cannot run the model at this speed.
        MissingExtra: the software that runs the model is not installed.
    """

    def __init__(
        self,
        model: ModelSource | None = None,
        device: str = "auto",
        *,
        trust_engine: bool = False,
        load: bool = True,
        speed: str = DEFAULT_SPEED,
        config: str | os.PathLike[str] | None = None,
        precision: str = "fp32",
    ) -> None:
        def open_one(one: str | os.PathLike[str] | Engine | None) -> LoadedModel:
            return LoadedModel(one, device, trust_engine, speed, config, precision)

        # An absolute path, because the current folder may change before a copy is made.
        self._source = portable_source(model) if is_named(model) else model
        self._speed, self._precision = speed, precision
        self._copy = partial(
            type(self),
            device=device,
            trust_engine=trust_engine,
            speed=speed,
            config=config,
            precision=precision,
        )
        self._model = combine(model, open_one, config)
        self.models = tuple(leaves(self._model))
        """The single models that it consists of."""
        self.guesses = tuple(dict.fromkeys(name for one in self.models for name in one.guesses))
        """The names of settings that are assumed, because nothing states them: see ``config``."""
        if load:
            self.load()

    @property
    def manifest(self) -> Manifest:
        """The model's stems, sample rate and other properties."""
        return self._model.manifest

    @property
    def device(self) -> str:
        """The device that the model runs on, e.g. ``cpu``, ``cuda:0``; those of an ensemble."""
        return ", ".join(dict.fromkeys(str(one.device) for one in self.models))

    def load(self) -> None:
        """Loads the model onto its device, unless it is there; raises the errors of the class."""
        for one in self.models:
            _ = one.engine

    def __repr__(self) -> str:
        stems = ", ".join(self.manifest.outputs)
        return f"Separator({self.manifest.name} on {self.device}: {stems})"

    def __reduce__(self) -> tuple[partial[Separator], tuple[()]]:
        return partial(self._copy, portable_source(self._source)), ()

    @property
    def products(self) -> str:
        """The products that run, e.g. ``bf16x3 (amx)`` or ``float32``; on a GPU the precision."""
        return ", ".join(dict.fromkeys(one.products for one in self.models))

    def prewarm(self) -> None:
        """Runs a chunk of noise, so that the first song does not pay for first-run allocations.

        Raises:
            ModelError: the model cannot run.
        """
        for one in self.models:
            one.engine.run(check_input(0, one.manifest.channels, one.manifest.chunk))

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
        bitrate: float | None = None,
        start_s: float = 0.0,
        duration_s: float | None = None,
        mix: Mapping[str, float] | None = None,
        report: bool = False,
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
            bitrate: kbit/s of MP3, Vorbis or Opus. Default: libsndfile's.
            start_s, duration_s: the part of the song to separate; its files have names such as
                ``song_vocals_30s-45s.flac``, or ``song_vocals_30s-end.flac`` if the song ends
                before. See :class:`bsmamba2.files.excerpt.Excerpt`.
            mix: gains in dB by stem, e.g. ``{"vocals": -14, "instrumental": 0}``: writes one file,
                ``song_mix``, instead of the stems. Stems that are not listed are silent.
            report: whether to write a page to see and hear the result too, with the name of a stem
                called ``report``: ``song_report.html``.
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
        options = OutputOptions(
            selected, overlap, format, subtype, clip, template, bitrate, self._speed,
            self._precision, report, excerpt=Excerpt(start_s, duration_s),
            mix=None if mix is None else Mix(mix),
        )  # fmt: skip
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
        threads = 1 if self.device == "cpu" else 2
        return separate_song(
            self._model, plan, threads, overwrite, record, resume, progress, cancel
        )

    def stream(
        self,
        sample_rate: float,
        channels: int = 2,
        *,
        block_ms: float | None = None,
        lookahead_ms: float | None = None,
        overlap: float | None = None,
        channels_first: bool | None = None,
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
                checkpoint of a shipped size, or exported with ``streaming=True``.
            overlap: of neighbouring chunks, without a lookahead. Default: the model's.
            channels_first: whether pushes are (channels, n), not (n, channels). Default: as the
                first push that can be only one of them.
            cancel: set it from any thread to stop a push or flush before the next run of the
                model, with :class:`bsmamba2.Cancelled`.

        Raises:
            AudioError: an argument is out of range.
            ModelError: the model has no graph for streams.
        """
        manifest = self.manifest
        form = manifest, sample_rate, channels, channels_first
        if lookahead_ms is None:
            if block_ms is not None:
                raise AudioError(
                    f"block_ms must be None without lookahead_ms; got {block_ms:g}: without a "
                    "lookahead the stream runs whole chunks"
                )
            start = chunk_pipelines(self._model, sample_rate, channels, overlap, cancel=cancel)
            return Stream(start, *form)
        if overlap is not None:
            raise AudioError(
                f"overlap must be None with lookahead_ms; got {overlap:g}: the steps of a stream "
                "do not overlap"
            )
        block = lookahead_ms if block_ms is None else block_ms
        start = step_pipelines(self._model, sample_rate, channels, block, lookahead_ms, cancel)
        return Stream(start, *form)

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
        with engine_threads(0 if self.device == "cpu" else 2) as pool:
            start = chunk_pipelines(
                self._model, sample_rate, channels, overlap, pool=pool, cancel=cancel
            )
            for block in start().run(blocks, samples, progress, cancel):
                outputs[..., done : done + block.shape[-1]] = block[rows]
                done += block.shape[-1]
        residual = self.manifest.residual if names == self.manifest.outputs else None
        return Stems(outputs, names, sample_rate, layout=layout, residual=residual, song=song)


def separate(
    path: str | os.PathLike[str],
    model: ModelSource | None = None,
    device: str = "auto",
    overlap: float | None = None,
    stems: Iterable[str] | None = None,
    speed: str = DEFAULT_SPEED,
    *,
    start_s: float = 0.0,
    duration_s: float | None = None,
) -> Stems:
    """Separates a file into arrays, (channels, samples) float32 at the song's rate.

    This loads the model on every call; for several songs create one :class:`Separator`. For long
    songs :meth:`Separator.separate_file` needs less memory.

    Args:
        path: the song, in any format that libsndfile or, with the extra ``av``, FFmpeg reads.
        model, device, speed: as for :class:`Separator`.
        overlap: of neighbouring chunks, a fraction in [0, 1). Default: the model's.
        stems: the stems to return. Default: all.
        start_s, duration_s: the part of the song to separate. Default: all of it.

    Raises:
        AudioError, ModelError, DeviceError, MissingExtra: see :class:`Separator`.
    """
    with SongFile(path, Excerpt(start_s, duration_s)) as song:
        separator = Separator(model, device, speed=speed)
        mixture = np.concatenate([to_float32(block) for block in song.blocks()], axis=1)
        rate, layout, name = song.sample_rate, Layout.CHANNELS_FIRST, song.path.stem
        return separator._separate(mixture, rate, layout, song=name, stems=stems, overlap=overlap)
