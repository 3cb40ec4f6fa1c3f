"""``bsmamba2 separate``: songs to stems."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, get_args

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from bsmamba2.device import NAMES
from bsmamba2.encoding import Clip
from bsmamba2.errors import AudioError, Cancelled, Error
from bsmamba2.separator import Separator

PATH = click.Path(path_type=Path)


@click.command(short_help="Write a song's vocals and instrumental.")
@click.argument("songs", metavar="SONG...", nargs=-1, required=True, type=PATH)
@click.option(
    "-o", "--output", metavar="DIR", type=PATH, help="Folder for the stems. Default: the song's."
)
@click.option("-m", "--model", help="An .onnx of bsmamba2 export, a .ckpt or .safetensors.")
@click.option("--stem", "stems", multiple=True, help="Write this stem only; may repeat.")
@click.option("--device", default="auto", show_default=True, help=f"{NAMES}.")
@click.option(
    "--overlap", type=float, help="Overlap of chunks, 0 to below 1. Default: the model's."
)
@click.option("--format", help="flac, wav, aiff ... Default: the song's, flac where that is lossy.")
@click.option("--subtype", help="pcm_16, pcm_24, float ... Default: the song's.")
@click.option(
    "--clip",
    type=click.Choice(get_args(Clip)),
    default="float",
    show_default=True,
    help="What becomes of a stem beyond full scale.",
)
@click.option("--overwrite", is_flag=True, help="Replace stems that exist.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a song.")
def separate(
    songs: tuple[Path, ...],
    output: Path | None,
    model: str | None,
    stems: tuple[str, ...],
    device: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Write the stems of each SONG as DIR/SONG_vocals.flac and so on, and print their paths.

    All songs are tried; those that failed are listed at the end, with exit status 2.
    """
    separator = Separator(model, device)
    about = {"model": separator.manifest.name, "device": separator.device}
    if device == "auto":
        click.echo("{model} on {device}".format(**about), err=True)
    failures: list[str] = []
    made: dict[Path, Path] = {}
    for song in songs:
        key = (output or song.parent).absolute() / song.stem
        try:
            if key in made:
                raise AudioError(
                    f"{song} has the name of {made[key]}, whose stems were just written: choose "
                    "another folder for it with -o"
                )
            with _Watch(song) as watch:
                paths = separator.separate_file(
                    song, output, stems=stems or None, progress=watch.report, **options
                )
        except Cancelled:
            raise
        except Error as error:
            # An AudioError names its file; what the model did needs the song beside it.
            failures.append(str(error) if isinstance(error, AudioError) else f"{song}: {error}")
            record: dict[str, Any] = {"error": str(error)}
        else:
            made[key] = song
            outputs = {stem: str(path) for stem, path in paths.items()}
            record = {"outputs": outputs, **watch.figures()}
        if as_json:
            click.echo(json.dumps({"song": str(song), **record, **about}))
        elif "outputs" in record:
            click.echo("\n".join(outputs.values()))
    for failure in failures:
        click.echo(f"bsmamba2: {failure}", err=True)
    if failures:
        click.get_current_context().exit(2)


class _Watch:
    """Times one song and, on a terminal, shows its progress with speed and time left."""

    def __init__(self, song: Path) -> None:
        console = Console(stderr=True)
        self._shown = console.is_terminal
        self._bar = Progress(
            # No markup: a song may be called "[red] x".
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[speed]:.1f}x real time"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task(song.name, total=None, speed=0.0)
        self._song_seconds = 0.0

    def __enter__(self) -> _Watch:
        self._start = time.perf_counter()
        if self._shown:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            self._bar.stop()
        self._seconds = time.perf_counter() - self._start

    def report(self, done_seconds: float, total_seconds: float) -> None:
        self._song_seconds = total_seconds
        speed = done_seconds / (time.perf_counter() - self._start)
        self._bar.update(self._task, completed=done_seconds, total=total_seconds, speed=speed)

    def figures(self) -> dict[str, float]:
        """The time it took, and how many seconds of song a second of it separated."""
        speed = self._song_seconds / self._seconds
        return {"seconds": round(self._seconds, 3), "speed": round(speed, 3)}
