"""Separates one planned song from its file into the files of its stems."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from bsmamba2.files.identity import Identity
from bsmamba2.files.song_file import SongFile
from bsmamba2.files.speakers import mask_of_comment
from bsmamba2.files.stem_files import StemFiles
from bsmamba2.files.tags import read_tags
from bsmamba2.pipeline.open_pipeline import Loaded, chunk_pipelines
from bsmamba2.pipeline.overlap_add import engine_threads
from bsmamba2.report.facts import facts_of
from bsmamba2.report.song_report import SongReport

if TYPE_CHECKING:
    from pathlib import Path
    from threading import Event

    from bsmamba2.batch.plan import FilePlan
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
    identity = Identity.of(plan.song)
    with SongFile(plan.song) as song, engine_threads(threads) as pool, ExitStack() as stack:
        rate, channels, step = song.sample_rate, song.channels, plan.encoding.step
        start = chunk_pipelines(model, rate, channels, plan.overlap, step, pool, cancel)
        tags, mask = read_tags(song.path), song.speaker_mask
        files = StemFiles(
            plan.directory,
            plan.names,
            plan.encoding,
            rate,
            channels,
            clip=plan.clip,
            overwrite=overwrite or recorded is not None,
            song=song.path,
            tags=tags,
            speaker_mask=mask_of_comment(tags.fields) if mask is None else mask,
        )
        report, blocks = None, song.blocks()
        if plan.report is not None:
            may_replace = overwrite or recorded is not None
            report = SongReport(plan.report, song, model.manifest, may_replace, plan.report_mb)
            blocks = stack.enter_context(report).heard(blocks)
        with files:
            for outputs in start().run(blocks, song.samples, progress, cancel):
                files.write(outputs)
                if report:
                    report.push(outputs)
            if report:
                report.finish(facts_of(model, _about_song(song), _settings(plan), plan.overlap))
            known = model.manifest.available
            sizes = {known[row]: file for row, file in files.finish().items()}
            identity.require_unchanged()
            if record or resume:
                plan.record.write(sizes, identity)
            written = {known[row]: path for row, path in files.publish().items()}
            if report:
                report.publish()
        if overwrite:
            plan.record.remove_replaced(written)
        return written


def _about_song(song: SongFile) -> dict[str, str]:
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
        "Stems written": ", ".join(plan.outputs) or "none",
        "Format": f"{encoding.format} {encoding.subtype}",
        "Beyond full scale": plan.clip,
    }
