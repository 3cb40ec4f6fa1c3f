"""``bsmamba2 dataset``, ``train`` and ``evaluate``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bsmamba2.errors import DeviceError
from bsmamba2_network import PRESETS
from bsmamba2_training.run import PRECISIONS, Plan, Run

PATH = click.Path(path_type=Path)


@click.command(short_help="Make the free data set from Debian's packages.")
@click.argument("folder", type=PATH)
@click.option(
    "--work", type=PATH, help="Where packages are kept and unpacked, 8 GB. Default: FOLDER/work."
)
@click.option(
    "--sung-minutes", default=60.0, show_default=True, help="Of each speaker turned into singing."
)
@click.option("--held-minutes", default=4.0, show_default=True, help="The same, in long notes.")
@click.option("--jobs", default=os.cpu_count() or 1, show_default="cores", help="Processes.")
def dataset(
    folder: Path, work: Path | None, sung_minutes: float, held_minutes: float, jobs: int
) -> None:
    """Make stems to train and be measured on in FOLDER, 15 GB, from packages of Debian 12.

    Packages are downloaded by name, verified and unpacked; nothing is installed. A recipe that was
    stopped goes on where it was. FOLDER/SOURCES.md names every source and its licence.
    """
    from bsmamba2_training.recipe import Amounts, build

    with _bar() as bar:
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
    click.echo(f"wrote {folder}")


@click.command(short_help="Train a network, or go on with it.")
@click.argument("dataset", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("-o", "--output", "folder", type=PATH, required=True, help="The run's folder.")
@click.option("--preset", type=click.Choice(list(PRESETS)), help="Of a new run.")
@click.option("--steps", type=int, help=f"Of all. Default: {Plan.steps}.")
@click.option("--batch", type=int, help=f"Items a step. Default: {Plan.batch}.")
@click.option("--parts", type=int, help="Of a batch, one after the other, for less memory.")
@click.option("--segment", "segment_s", type=float, help=f"Seconds. Default: {Plan.segment_s}.")
@click.option("--learning-rate", type=float, help=f"Default: {Plan.learning_rate}.")
@click.option("--streaming", type=float, help=f"Part of items. Default: {Plan.streaming}.")
@click.option("--precision", type=click.Choice(PRECISIONS), help="Default: bf16 on CUDA.")
@click.option("--loss-hop", type=int, help=f"Samples. Default: {Plan.loss_hop}.")
@click.option("--silence", type=float, help="Weight of sound where there is no voice. Default: 0.")
@click.option("--variety", type=float, help="Part of music laid over other music. Default: 0.")
@click.option("--warm-up", type=int, help=f"Steps. Default: {Plan.warm_up}.")
@click.option("--decay", type=float, help=f"Part of the steps. Default: {Plan.decay}.")
@click.option("--valid-every", type=int, help=f"Steps. Default: {Plan.valid_every}.")
@click.option("--seed", type=int, help="Default: 0.")
@click.option(
    "--weights",
    type=PATH,
    multiple=True,
    help="What a new run starts from; of several, their mean.",
)
@click.option(
    "--minutes", type=click.FloatRange(min=0), help="Of this leg; then it saves and stops."
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
@click.option("--threads", type=click.IntRange(min=1), help="Of the CPU. Default: all cores.")
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    help="Processes that mix. Default: 0, on CUDA all cores.",
)
def train(
    dataset: Path,
    folder: Path,
    weights: tuple[Path, ...],
    minutes: float | None,
    save_every_s: float,
    device: str,
    threads: int | None,
    workers: int | None,
    **options: Any,
) -> None:
    """Train on DATASET, MUSDB18-HQ's layout or what bsmamba2 dataset makes.

    A run that was stopped or killed goes on with the same command, or without its options. The
    model is RUN/model.safetensors at any time.
    """
    from bsmamba2_training.curves import plot
    from bsmamba2_training.loop import train as go_on

    where = _device(device)
    if threads:
        torch.set_num_threads(threads)
    given = {name: value for name, value in options.items() if value is not None}
    plan = None
    if "preset" in given:
        if where.type == "cuda":
            given.setdefault("precision", "bf16")
        plan = Plan(**given)
    elif given:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise click.UsageError(f"{names} belong to a new run: name its --preset, or leave them out")
    run = Run(folder, plan, where, weights)
    if workers is None:
        workers = (os.cpu_count() or 1) if where.type == "cuda" else 0
    with _bar() as bar:
        task = bar.add_task(run.plan.preset, total=run.plan.steps, completed=run.step)
        is_done = go_on(
            run,
            dataset,
            minutes=minutes,
            save_every_s=save_every_s,
            workers=workers,
            report=lambda step, _, line: bar.update(task, completed=step, description=line),
        )
    click.echo(f"{'done' if is_done else 'stopped'} after step {run.step}: {plot(run)}")
    click.echo(folder / "model.safetensors")


def _device(name: str) -> torch.device:
    """The device of a name; TF32 products, which training does not feel, on CUDA."""
    torch.set_float32_matmul_precision("high")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceError(f"device must be auto, cpu or cuda[:N]; got {name!r}") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DeviceError("PyTorch finds no CUDA here; leave --device out, or name cpu")
    return device


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )


@click.command(short_help="Score a model, or any tool's stems, on songs with known stems.")
@click.argument("dataset", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("-m", "--model", type=PATH, help="As bsmamba2 separate takes it.")
@click.option(
    "--estimates",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Score DIR/SONG/vocals.wav of any other tool in place of a model.",
)
@click.option("-o", "--output", type=PATH, help="Folder for JSON, CSV, table and plot.")
@click.option("--split", default="test", show_default=True, help="DATASET/SPLIT/SONG, if there.")
@click.option("--songs", "most", type=click.IntRange(min=1), help="At most so many songs.")
@click.option("--device", help="auto, cpu or cuda[:N]. Default: auto.")
@click.option("--overlap", type=float, help="Of chunks, 0 to below 1. Default: the model's.")
@click.option("--lookahead-ms", type=float, help="Score a stream with this lookahead.")
@click.option("--block-ms", type=float, help="Of that stream. Default: as its lookahead.")
@click.option("--csdr/--no-csdr", default=True, help="BSS Eval v4, 20 s for a minute of song.")
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=os.cpu_count() or 1,
    show_default="cores",
    help="Processes that score.",
)
@click.option(
    "--baselines/--no-baselines", default=True, help="Mixture, silence, oracle, REPET-SIM."
)
def evaluate(
    dataset: Path,
    model: Path | None,
    estimates: Path | None,
    output: Path | None,
    split: str,
    most: int | None,
    device: str | None,
    overlap: float | None,
    lookahead_ms: float | None,
    block_ms: float | None,
    csdr: bool,
    jobs: int,
    baselines: bool,
) -> None:
    """Score a separation on DATASET: MUSDB18-HQ's layout, or folders of mixture.wav and vocals.wav.

    cSDR (BSS Eval v4), uSDR, SI-SDR, uSDR by how long a voice sounds, and what is left in the
    vocals where there is none.
    """
    from bsmamba2 import Separator
    from bsmamba2_training import evaluation, layout, results

    if model is not None and estimates is not None:
        raise click.UsageError("name a model with -m or a folder with --estimates, not both")
    options = {
        "--device": device,
        "--overlap": overlap,
        "--lookahead-ms": lookahead_ms,
        "--block-ms": block_ms,
    }
    given = ", ".join(option for option, value in options.items() if value is not None)
    if estimates is not None and given:
        raise click.UsageError(
            f"only a model takes {given}: leave that out, or give -m in place of --estimates"
        )
    if block_ms is not None and lookahead_ms is None:
        raise click.UsageError("--block-ms belongs to a stream: give --lookahead-ms with it")
    if overlap is not None and lookahead_ms is not None:
        raise click.UsageError(
            "--overlap belongs to whole songs and --lookahead-ms to a stream: leave out one"
        )
    found = layout.songs(dataset, split)[:most]
    about: dict[str, Any]
    if estimates is not None:
        name, about = evaluation.system_name(estimates.resolve().name, "estimates"), {}
        estimator = evaluation.files_estimator(estimates)
    else:
        separator = Separator(model, "auto" if device is None else device)
        name = evaluation.system_name(separator.manifest.name, "model")
        about = evaluation.model_protocol(
            separator, model, overlap=overlap, block_ms=block_ms, lookahead_ms=lookahead_ms
        )
        if lookahead_ms is None:
            estimator = evaluation.model_estimator(separator, overlap)
        else:
            estimator = evaluation.stream_estimator(separator, block_ms, lookahead_ms)
    systems = (evaluation.baseline_estimators() if baselines else {}) | {name: estimator}
    with _bar() as bar:
        task = bar.add_task("", total=len(found) * len(systems))
        scores = evaluation.evaluate(
            found,
            systems,
            csdr=csdr,
            jobs=jobs,
            progress=lambda line: bar.update(task, advance=1, description=line),
        )
    protocol = evaluation.protocol(name, dataset, len(found), split=split, **about)
    if output:
        click.echo(results.write(scores, protocol, output))
        click.echo(f"wrote {output}")
    else:
        click.echo(results.page(evaluation.summarise(scores), protocol))
