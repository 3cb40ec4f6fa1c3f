"""``bsmamba2 dataset``, ``train`` and ``evaluate``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bsmamba2.commands.display import hint_if_stopped
from bsmamba2.commands.parameters import MODEL_HELP, ModelName, catalogue_option
from bsmamba2.errors import DeviceError, one_line
from bsmamba2_network import PRESETS
from bsmamba2_training.run import PRECISIONS, Plan, Run

PATH = click.Path(path_type=Path)


@click.command(short_help="Build the free data set from packages and repositories.")
@click.argument("folder", type=PATH)
@click.option(
    "--work",
    type=PATH,
    help="Folder for downloads, 8 GB. Default: FOLDER/work.",
)
@click.option(
    "--sung-minutes",
    default=60.0,
    show_default=True,
    help="Minutes of each speaker's speech to turn into singing, at most.",
)
@click.option(
    "--held-minutes",
    default=4.0,
    show_default=True,
    help="Minutes of each speaker's speech to turn into long held notes, at most.",
)
@click.option(
    "--jobs",
    default=os.cpu_count() or 1,
    show_default="cores",
    help="Number of worker processes.",
)
def dataset(
    folder: Path, work: Path | None, sung_minutes: float, held_minutes: float, jobs: int
) -> None:
    """Build a training, validation and test set of stems in FOLDER, 15 GB.

    Packages of Debian 12 and git repositories are downloaded and verified; nothing is installed. If
    interrupted, run it again to resume. FOLDER/SOURCES.md lists every source and its licence.
    """
    from bsmamba2_training.recipe import Amounts, build

    with hint_if_stopped("to continue, repeat the command"), _progress_bar() as bar:
        task = bar.add_task("packages", total=None)
        build(
            folder,
            work or folder / "work",
            Amounts(sung_minutes=sung_minutes, held_minutes=held_minutes),
            jobs,
            lambda name, done, total: bar.update(
                task, description=name, completed=done, total=total
            ),
        )
    click.echo(f"wrote {one_line(folder)}")


@click.command(short_help="Train a network, or resume a run.")
@click.argument("dataset", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("-o", "--output", "folder", type=PATH, required=True, help="Folder of the run.")
@click.option("--preset", type=click.Choice(list(PRESETS)), help="Network size; starts a new run.")
@click.option("--steps", type=int, help=f"Total steps. Default: {Plan.steps}.")
@click.option("--batch", type=int, help=f"Items per step. Default: {Plan.batch}.")
@click.option(
    "--parts",
    type=int,
    help="Split each batch into this many parts, computed one after the other to save memory. "
    f"Default: {Plan.parts}.",
)
@click.option(
    "--segment",
    "segment_s",
    type=float,
    help=f"Length of a training item, in seconds. Default: {Plan.segment_s}.",
)
@click.option(
    "--learning-rate", type=float, help=f"Peak learning rate. Default: {Plan.learning_rate}."
)
@click.option(
    "--streaming",
    type=float,
    help=f"Fraction of items trained as streams, 0 to 1. Default: {Plan.streaming}.",
)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    help="Precision of matrix products. Default: bf16 on CUDA, fp32 on the CPU.",
)
@click.option(
    "--loss-hop",
    type=int,
    help="Hop of the transforms in the loss, in samples; a longer hop is faster. "
    f"Default: {Plan.loss_hop}.",
)
@click.option(
    "--silence",
    type=float,
    help=f"Weight of the loss for output where no voice sounds. Default: {Plan.silence}.",
)
@click.option(
    "--silence-rise",
    type=float,
    help="Fraction of steps, 0 to 1, over which the weight of that loss rises from 0. "
    f"Default: {Plan.silence_rise}.",
)
@click.option(
    "--sdr",
    type=float,
    help="Weight of the loss for the SDR of each item, which a missed voice costs. "
    f"Default: {Plan.sdr}.",
)
@click.option(
    "--singers",
    type=float,
    help="Share of items, 0 to 1, with the voices of singers that a teacher separated from songs. "
    f"Default: {Plan.singers}.",
)
@click.option(
    "--songs",
    type=float,
    help="Share of items, 0 to 1, that are whole songs with the teacher's vocals. "
    f"Default: {Plan.songs}.",
)
@click.option(
    "--stereo",
    type=float,
    help="Probability, 0 to 1, that a voice is placed anywhere in stereo, and that the mixture is "
    f"made narrower, wider, mono or one-sided. Default: {Plan.stereo}.",
)
@click.option(
    "--variety",
    type=float,
    help="Probability, 0 to 1, that other music is added to the music, and that a stem is "
    f"equalised. Default: {Plan.variety}.",
)
@click.option(
    "--warm-up",
    type=int,
    help=f"Steps over which the learning rate rises from 0. Default: {Plan.warm_up}.",
)
@click.option(
    "--decay",
    type=float,
    help="Fraction of steps, at the end, with a decaying learning rate, 0 to 1. "
    f"Default: {Plan.decay}.",
)
@click.option(
    "--valid-every", type=int, help=f"Steps between validations. Default: {Plan.valid_every}."
)
@click.option("--seed", type=int, help=f"Seed of all random numbers. Default: {Plan.seed}.")
@click.option(
    "--weights",
    type=ModelName(),
    multiple=True,
    help="Name or checkpoint from which a new run starts; if given several times, their mean.",
)
@click.option(
    "--minutes", type=click.FloatRange(min=0), help="Save and stop after this many minutes."
)
@click.option(
    "--save-every",
    "save_every_s",
    type=click.FloatRange(min=0),
    default=120.0,
    show_default=True,
    help="Seconds between saves.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda[:N].")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads. Default: all cores.")
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    help="Processes that mix training items; 0 mixes in the main process. "
    "Default: all cores on CUDA, otherwise 0.",
)
def train(
    dataset: Path,
    folder: Path,
    weights: tuple[str, ...],
    minutes: float | None,
    save_every_s: float,
    device: str,
    threads: int | None,
    workers: int | None,
    **options: Any,
) -> None:
    """Train on DATASET, which has the layout of MUSDB18-HQ or of bsmamba2 dataset.

    To resume a run that was stopped or killed, repeat the command with the same -o; the options of
    the plan may be left out. RUN/model.safetensors always holds the latest saved model.
    """
    from bsmamba2_training.curves import plot
    from bsmamba2_training.loop import train as train_run

    torch_device = _resolve_device(device)
    if threads:
        torch.set_num_threads(threads)
    given = {name: value for name, value in options.items() if value is not None}
    plan = None
    if "preset" in given:
        if torch_device.type == "cuda":
            given.setdefault("precision", "bf16")
        plan = Plan(**given)
    elif given:
        names = ", ".join(f"--{name.removesuffix('_s').replace('_', '-')}" for name in given)
        raise click.UsageError(
            f"only a new run accepts {names}: add --preset to start one, or leave out {names} to "
            "resume"
        )
    run = Run(folder, plan, torch_device, weights)
    if workers is None:
        workers = (os.cpu_count() or 1) if torch_device.type == "cuda" else 0
    with (
        hint_if_stopped(f"to continue, bsmamba2 train DATASET -o {folder}"),
        _progress_bar() as bar,
    ):
        task = bar.add_task(run.plan.preset, total=run.plan.steps, completed=run.step)
        is_done = train_run(
            run,
            dataset,
            minutes=minutes,
            save_every_s=save_every_s,
            workers=workers,
            report=lambda step, _, line: bar.update(task, completed=step, description=line),
        )
    click.echo(f"{'done' if is_done else 'stopped'} after step {run.step}: {one_line(plot(run))}")
    click.echo(one_line(folder / "model.safetensors"))


def _resolve_device(name: str) -> torch.device:
    """Returns the named device, and allows TF32 products, which are precise enough to train."""
    torch.set_float32_matmul_precision("high")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceError(f"device must be auto, cpu or cuda[:N]; got {name!r}") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DeviceError(
            f"device must be available; got {name!r}, but PyTorch finds no CUDA device: use "
            "--device cpu"
        )
    return device


def _progress_bar() -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )


@click.command(short_help="Score models, or the stems of any tool, on songs with known stems.")
@click.argument("dataset", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "-m",
    "--model",
    "models",
    type=ModelName(),
    multiple=True,
    help=f"{MODEL_HELP} Default: the shipped model. Repeat it to compare models.",
)
@catalogue_option
@click.option(
    "--estimates",
    "folders",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    multiple=True,
    help="Score another tool's stems, DIR/SONG/vocals.wav, with or without -m. May be repeated.",
)
@click.option("-o", "--output", type=PATH, help="Folder for the scores: JSON, CSV, table, plots.")
@click.option("--json", "as_json", is_flag=True, help="Print the scores as JSON, not as a table.")
@click.option(
    "--split",
    default="test",
    show_default=True,
    help="Score the songs in DATASET/SPLIT; for test, those in DATASET if it has no such folder.",
)
@click.option("--songs", "max_songs", type=click.IntRange(min=1), help="Maximum number of songs.")
@click.option("--device", help="auto, cpu or cuda[:N]. Default: auto.")
@click.option(
    "--overlap", type=float, help="Overlap of chunks, in [0, 1). Default: the model's own."
)
@click.option(
    "--lookahead-ms", type=float, help="Score the model as a stream with this lookahead, in ms."
)
@click.option("--block-ms", type=float, help="Block of that stream, in ms. Default: its lookahead.")
@click.option(
    "--csdr/--no-csdr",
    default=True,
    help="Also compute cSDR (BSS Eval v4), 20 s per minute of song.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=os.cpu_count() or 1,
    show_default="cores",
    help="Number of scoring processes.",
)
@click.option(
    "--baselines/--no-baselines",
    default=True,
    help="Also score the mixture, silence, an oracle mask and REPET-SIM.",
)
def evaluate(
    dataset: Path,
    models: tuple[str, ...],
    folders: tuple[Path, ...],
    output: Path | None,
    as_json: bool,
    split: str,
    max_songs: int | None,
    device: str | None,
    overlap: float | None,
    lookahead_ms: float | None,
    block_ms: float | None,
    csdr: bool,
    jobs: int,
    baselines: bool,
) -> None:
    """Score models on DATASET: MUSDB18-HQ, or folders with mixture.wav and vocals.wav.

    Scores: uSDR, the level of the voice, cSDR (BSS Eval v4), SI-SDR, uSDR by how long a voice
    sounds, and the vocals' level where none does. Models and other tools stand side by side.
    """
    from bsmamba2 import Separator
    from bsmamba2_training import evaluation, layout, results
    from bsmamba2_training.protocol import evaluation_protocol, model_protocol

    options = {
        "--device": device,
        "--overlap": overlap,
        "--lookahead-ms": lookahead_ms,
        "--block-ms": block_ms,
    }
    given = ", ".join(option for option, value in options.items() if value is not None)
    if folders and not models and given:
        raise click.UsageError(
            f"only a model accepts {given}: leave out {given}, or add -m to --estimates"
        )
    if block_ms is not None and lookahead_ms is None:
        raise click.UsageError("--block-ms applies only to a stream: add --lookahead-ms")
    if overlap is not None and lookahead_ms is not None:
        raise click.UsageError(
            "--overlap applies only to whole songs and --lookahead-ms only to a stream: leave one "
            "out"
        )
    songs = layout.songs(dataset, split)[:max_songs]
    details: dict[str, dict[str, Any]] = {}
    systems: dict[str, evaluation.Estimator] = {}
    for folder in folders:
        name = evaluation.system_name(folder.resolve().name, "estimates", systems)
        details[name] = {}
        systems[name] = evaluation.files_estimator(folder)
    for model in models or (() if folders else (None,)):
        separator = Separator(model, "auto" if device is None else device)
        name = evaluation.system_name(separator.manifest.name, "model", systems)
        details[name] = model_protocol(
            separator, model, overlap=overlap, block_ms=block_ms, lookahead_ms=lookahead_ms
        )
        systems[name] = (
            evaluation.model_estimator(separator, overlap)
            if lookahead_ms is None
            else evaluation.stream_estimator(separator, block_ms, lookahead_ms)
        )
    protocol = evaluation_protocol(list(systems), dataset, len(songs), details, split=split)
    if baselines:
        systems = evaluation.baseline_estimators() | systems
    with _progress_bar() as bar:
        task = bar.add_task("", total=len(songs) * len(systems))
        scores = evaluation.evaluate(
            songs,
            systems,
            csdr=csdr,
            jobs=jobs,
            progress=lambda line: bar.update(task, advance=1, description=line),
        )
    page = results.write(scores, protocol, output) if output else results.page(scores, protocol)
    click.echo(results.to_json(scores, protocol) if as_json else page, nl=not as_json)
    if output:
        click.echo(f"wrote {one_line(output)}", err=True)
