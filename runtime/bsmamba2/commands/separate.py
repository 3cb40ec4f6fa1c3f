"""``bsmamba2 separate``: separates songs into stems."""

from __future__ import annotations

import json
from collections.abc import Sized
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, get_args

import click

from bsmamba2.batch.batch import Batch, Outcome
from bsmamba2.batch.plan import OutputOptions
from bsmamba2.commands.destination import destination
from bsmamba2.commands.display import Display, describe_guesses, hint_if_stopped, length
from bsmamba2.commands.parameters import (
    MODEL_HELP,
    Gains,
    ModelName,
    OutputPath,
    SongOrStdin,
    catalogue_option,
    config_option,
    device_option,
    duration_option,
    speed_option,
    start_option,
)
from bsmamba2.errors import for_command_line, one_line
from bsmamba2.files.encoding import Clip
from bsmamba2.files.excerpt import Excerpt
from bsmamba2.files.naming import DEFAULT_TEMPLATE
from bsmamba2.files.wav_reader import STDIN
from bsmamba2.files.wav_writer import STDOUT, ReaderGone
from bsmamba2.models import registry
from bsmamba2.models.checkpoint_model import PRECISIONS
from bsmamba2.separator import Separator


@click.command(short_help="Write the vocals and instrumental of songs.")
@click.argument("songs", metavar="SONG...", nargs=-1, required=True, type=SongOrStdin())
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    type=OutputPath(),
    help="Folder for the stems. Default: the song's. A mix or one --stem of one song may also go "
    "to a file such as karaoke.mp3, or to standard output: -.",
)
@click.option("-m", "--model", type=ModelName(), help=f"{MODEL_HELP} Default: the shipped model.")
@config_option
@catalogue_option
@click.option("--stem", "stems", multiple=True, help="Write only this stem; can be repeated.")
@click.option(
    "--mix",
    type=Gains(),
    metavar="STEM=DB,...",
    help='Write one file from the stems at gains in dB, such as "vocals=-14,instrumental=0". '
    "Stems that are not listed are silent.",
)
@start_option
@duration_option
@device_option
@speed_option
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="fp32",
    show_default=True,
    help="Of a checkpoint's products. bf16 and fp16 are for GPUs, and lose some quality.",
)
@click.option(
    "--overlap",
    type=float,
    help="Overlap of neighbouring chunks, a fraction in [0, 1). Default: the model's.",
)
@click.option("--format", help="flac, wav, aiff ... Default: the song's, or flac for a lossy song.")
@click.option("--subtype", help="pcm_16, pcm_24, float ... Default: the song's.")
@click.option("--bitrate", type=float, metavar="KBITS", help="kbit/s of mp3 or ogg stems.")
@click.option(
    "--clip",
    type=click.Choice(get_args(Clip)),
    default="float",
    show_default=True,
    help="What to do with a stem that exceeds full scale: write 32-bit float, clip, or fail.",
)
@click.option(
    "--template",
    default=DEFAULT_TEMPLATE,
    show_default=True,
    help="File names, built from {name}, {stem}, {model}, {source_ext}, the tags {track}, "
    "{artist}, {title} and {album}, and a final .{ext}; / creates folders.",
)
@click.option("--report", is_flag=True, help="Also write a page to see and hear the stems.")
@click.option("--overwrite", is_flag=True, help="Replace existing files.")
@click.option("--resume", is_flag=True, help="Continue after a run that was stopped or killed.")
@click.option("--plan", "only_plan", is_flag=True, help="Show what would be written, and stop.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per song.")
def separate(
    songs: tuple[Path, ...],
    output: Path | None,
    model: str | None,
    config: Path | None,
    stems: tuple[str, ...],
    start_s: float,
    duration_s: float | None,
    device: str,
    speed: str,
    precision: str,
    overwrite: bool,
    resume: bool,
    only_plan: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Write the stems of each SONG as DIR/SONG_vocals.flac and so on, and print their paths.

    A SONG may be a folder: then all songs in it and in its subfolders are separated, and DIR gets
    the same subfolders. A song that fails does not stop the others; failures are listed at the
    end, and the exit status is 2. A small hidden file next to the stems lets --resume skip songs
    that are done and whose file, model and options have not changed.

    A SONG of - is a WAV on standard input, and -o - writes a WAV of 32-bit floats to standard
    output, as the song arrives.
    """
    for flag, is_given in (("--resume", resume), ("--plan", only_plan), ("--json", as_json)):
        if is_given and (output == STDOUT or (STDIN in songs and flag != "--json")):
            raise click.UsageError(f"{flag} needs songs and stems that are files; got -")
    is_one_file = options["mix"] is not None or len(stems) == 1
    folder, options = destination(output, songs, is_one_file, options)
    output_options = OutputOptions(
        stems=stems or None,
        speed=speed,
        precision=precision,
        excerpt=Excerpt(start_s, duration_s),
        **options,
    )
    separator = Separator(
        model, device, speed=speed, config=config, precision=precision, load=False
    )
    about = {
        "model": separator.manifest.name,
        "device": separator.device,
        "products": separator.products,
    }
    hint = "to continue, repeat the command with --resume"
    is_piped = STDIN in songs or output == STDOUT
    stopped = nullcontext() if is_piped else hint_if_stopped(hint)
    with stopped, Display() as display, suppress(ReaderGone):
        batch = Batch(separator, output_options, display, overwrite=overwrite, resume=resume)
        batch.plan(songs, folder)
        for one in separator.models:
            if assumed := describe_guesses(one.guesses, one.manifest):
                display.note(assumed)
        if batch.plans and not only_plan:  # otherwise the model is not needed
            separator.load()
            if model is None and about["model"] in registry.ABOUT:
                known, quality = registry.ABOUT[about["model"]], registry.PUBLISHED[0].name
                display.note(f"{about['model']}: {known}; for quality, -m {quality}")
            if device == "auto":
                display.note("{model} on {device}".format(**about))
            if speed == "fast" and about["products"] == "float32":
                display.note("fast is as exact: this processor has no faster products")
        if only_plan or batch.done or len(batch.plans) + len(batch.outcomes) > 1:
            display.note(_summary(batch))
        if only_plan:
            _print_plan(batch, as_json, display)
        for outcome in batch.outcomes if only_plan else batch.run():
            _print(outcome, about, as_json, display)
    failures = [outcome for outcome in batch.outcomes if outcome.error]
    for outcome in failures:
        click.echo(f"bsmamba2: {one_line(for_command_line(outcome.error))}", err=True)
    if failures:
        click.get_current_context().exit(1 if any(f.is_bug for f in failures) else 2)


def _summary(batch: Batch) -> str:
    """Returns the plan in one line."""
    to_do, done, failed = batch.plans, batch.done, len(batch.outcomes) - len(batch.done)
    files = [path for plan in to_do for path in plan.outputs.values()]
    folders = {path.parent for path in files}
    where = one_line(next(iter(folders))) if len(folders) == 1 else _count(folders, "folder")
    known, unknown = sum(plan.seconds for plan in to_do), [p for p in to_do if not p.seconds]
    audio = f"{length(known)} of audio" if known or not unknown else "length unknown"
    parts = [f"{_count(to_do, 'song')}, {audio}"]
    parts += [f"{_count(unknown, 'song')} of unknown length"] if unknown and known else []
    parts += [f"{_count(files, 'file')} into {where}"] if files else []
    parts += [f"{len(done)} already done"] if done else []
    parts += [f"{failed} cannot be separated"] if failed else []
    return "; ".join(parts)


def _count(things: Sized, name: str) -> str:
    """Formats a count: ``1 song``, ``3 songs``."""
    return f"{len(things)} {name}{'s' * (len(things) != 1)}"


def _print_plan(batch: Batch, as_json: bool, display: Display) -> None:
    for plan in batch.plans:
        outputs = {stem: str(path) for stem, path in plan.outputs.items()}
        pages = [str(plan.report)] if plan.report else []
        if as_json:
            record = {"song": str(plan.song), "seconds": plan.seconds or None, "planned": outputs}
            display.print(json.dumps(record | ({"report": pages[0]} if pages else {})))
        else:
            display.print("\n".join(map(one_line, [*outputs.values(), *pages])))


def _print(outcome: Outcome, about: dict[str, str], as_json: bool, display: Display) -> None:
    if as_json:
        fields = outcome.to_json()
        if outcome.error:
            fields["error"] = for_command_line(outcome.error)
        display.print(json.dumps({"song": str(outcome.song), **fields, **about}))
    elif outcome.outputs and not outcome.was_done:
        pages = [outcome.report] if outcome.report else []
        display.print("\n".join(map(one_line, [*outcome.outputs.values(), *pages])))
