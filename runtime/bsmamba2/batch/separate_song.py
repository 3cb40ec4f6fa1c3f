"""Separates one planned song from its file into the files of its stems."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np

from bsmamba2.files.identity import Identity
from bsmamba2.files.speakers import mask_of_comment
from bsmamba2.files.stem_files import StemFiles
from bsmamba2.files.tags import Tags, read_tags
from bsmamba2.files.wav_writer import WavWriter, standard_output
from bsmamba2.pipeline.mix import apply
from bsmamba2.pipeline.open_pipeline import Loaded, chunk_pipelines
from bsmamba2.pipeline.overlap_add import engine_threads
from bsmamba2.pipeline.residual import on_grid
from bsmamba2.report.facts import facts_of
from bsmamba2.report.song_report import SongReport

if TYPE_CHECKING:
    from pathlib import Path
    from threading import Event

    from bsmamba2.batch.plan import FilePlan
    from bsmamba2.files.song_file import SongFile
    from bsmamba2.files.wav_reader import WavReader
    from bsmamba2.pipeline.progress import Progress


def separate_song(
    model: Loaded,
    plan: FilePlan,
    threads: int,
    overwrite: bool = False,
    record: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
    cancel: Event | None = None,
) -> dict[str, Path]:
    """Writes the stems of a song, and the report if one is planned; returns each stem's path.

    Args:
        model: the loaded model, with which the song was planned.
        plan: the song and its files.
        threads: runs of the engine that are in flight while files are read and written.
        overwrite, record, resume, progress, cancel: as for
            :meth:`bsmamba2.Separator.separate_file`.

    Raises:
        AudioError, ModelError, Cancelled: see :meth:`bsmamba2.Separator.separate_file`.
    """
    recorded = plan.record.read() if resume else None
    if recorded and recorded.is_complete and not plan.lacks_report:
        return dict(recorded.outputs)
    # Of an excerpt, the rest of the file is not read.
    identity = None if plan.piped else Identity.of(plan.song, hashed=plan.excerpt.is_whole)
    may_replace = overwrite or recorded is not None
    with plan.open() as song, engine_threads(threads) as pool, ExitStack() as stack:
        rate, channels, step = song.sample_rate, song.channels, plan.encoding.step
        # A mix is rounded once, not the stems that it is made of.
        grid = 0.0 if plan.weights else step
        start = chunk_pipelines(model, rate, channels, plan.overlap, grid, pool, cancel)
        files = _open_outputs(plan, song, may_replace)
        report, blocks = None, song.blocks()
        if plan.report is not None:
            report = SongReport(plan.report, song, model.manifest, may_replace, plan.report_mb)
            blocks = stack.enter_context(report).heard(blocks)
        with files:
            for outputs in start().run(blocks, song.samples, progress, cancel):
                if report:
                    report.push(outputs)
                if plan.weights:
                    outputs = on_grid(apply(plan.weights, outputs), step)[np.newaxis]
                files.write(outputs)
            if report:
                report.finish(facts_of(model, _about_song(song), _settings(plan), plan.overlap))
            sizes = {plan.stems[row]: file for row, file in files.finish().items()}
            if identity:
                identity.require_unchanged()
            if identity and sizes and (record or resume):
                plan.record.write(sizes, identity)
            written = {plan.stems[row]: path for row, path in files.publish().items()}
            if report:
                report.publish()
        if overwrite and identity:
            plan.record.remove_replaced(written)
        return written


def _open_outputs(
    plan: FilePlan, song: SongFile | WavReader, overwrite: bool
) -> StemFiles | WavWriter:
    """Returns the files of the stems, or standard output."""
    tags, mask = (Tags() if plan.piped else read_tags(song.path)), song.speaker_mask
    mask = mask_of_comment(tags.fields) if mask is None else mask
    if not plan.excerpt.is_whole:
        tags = tags.for_excerpt(song.first)
    if plan.to_stdout:
        row = next(row for row, name in enumerate(plan.names) if name is not None)
        return WavWriter(
            standard_output(),
            row,
            plan.encoding,
            song.sample_rate,
            song.channels,
            clip=plan.clip,
            speaker_mask=mask,
        )
    return StemFiles(
        plan.directory,
        plan.names,
        plan.encoding,
        song.sample_rate,
        song.channels,
        clip=plan.clip,
        overwrite=overwrite,
        song=None if plan.piped else song.path,
        tags=tags,
        speaker_mask=mask,
    )


def _about_song(song: SongFile | WavReader) -> dict[str, str]:
    """Returns the rows about the song in its report."""
    return {
        "File": song.path.name,
        "Rate": f"{song.sample_rate} Hz",
        "Channels": f"{song.channels}",
        "Format": f"{song.encoding.format} {song.encoding.subtype}",
    }


def _settings(plan: FilePlan) -> dict[str, str]:
    """Returns the rows about the settings in a report."""
    encoding = plan.encoding
    return {
        "Files written": ", ".join(plan.outputs) or "none",
        "Format": f"{encoding.format} {encoding.subtype}",
        "Beyond full scale": plan.clip,
        "Part": "the whole song" if plan.excerpt.is_whole else plan.label.strip("_"),
    }
