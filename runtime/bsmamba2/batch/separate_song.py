"""Separates one planned song from its file into the files of its stems."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bsmamba2.files.identity import Identity
from bsmamba2.files.song_file import SongFile
from bsmamba2.files.speakers import mask_of_comment
from bsmamba2.files.stem_files import StemFiles
from bsmamba2.files.tags import read_tags
from bsmamba2.pipeline.open_pipeline import Loaded, chunk_pipelines
from bsmamba2.pipeline.overlap_add import engine_threads

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
    """Writes the stems of a song, and returns the path of each.

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
    if recorded and recorded.is_complete:
        return dict(recorded.outputs)
    identity = Identity.of(plan.song)
    with SongFile(plan.song) as song, engine_threads(threads) as pool:
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
        with files:
            for outputs in start().run(song.blocks(), song.samples, progress, cancel):
                files.write(outputs)
            known = model.manifest.available
            sizes = {known[row]: file for row, file in files.finish().items()}
            identity.require_unchanged()
            if record or resume:
                plan.record.write(sizes, identity)
            written = {known[row]: path for row, path in files.publish().items()}
        if overwrite:
            plan.record.remove_replaced(written)
        return written
