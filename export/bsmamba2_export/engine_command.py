"""``bsmamba2 build-engine``."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from bsmamba2.formats.engine_file import BACKENDS
from bsmamba2_export.engine_builder import build_engine as build

PATH = click.Path(path_type=Path)


@click.command(name="build-engine", short_help="Build a TensorRT engine of a model.")
@click.argument("model")
@click.option("-o", "--output", type=PATH, required=True, help="The .engine to write.")
@click.option(
    "--backend",
    type=click.Choice(BACKENDS),
    default="tensorrt-rtx",
    show_default=True,
    help="tensorrt-rtx builds for GPUs that are not here.",
)
@click.option("--gpu", "gpus", default="", help="For example sm89,sm120. Default: the one here.")
@click.option("--batch", default=1, show_default=True, help="The most chunks of one run.")
@click.option("--seconds", type=float, help="The longest chunk. Default: the model's.")
@click.option("--plugin", is_flag=True, help="Our CUDA kernels for the scans; tensorrt alone.")
@click.option("--overwrite", is_flag=True, help="Replace the output if it exists.")
def build_engine(
    model: str,
    output: Path,
    backend: str,
    gpus: str,
    batch: int,
    seconds: float | None,
    plugin: bool,
    overwrite: bool,
) -> None:
    """Build a TensorRT engine of MODEL (a name, .onnx, .ckpt, .safetensors).

    The engine computes in the model's precision. A file beside it says what it is; the engine that
    is already there is kept if it is of the same model, versions and sizes.
    """
    with Console(stderr=True, highlight=False).status("building") as status:
        engine = build(
            model,
            output,
            backend=backend,
            gpus=[gpu.strip().lower() for gpu in gpus.split(",") if gpu.strip()],
            batch=batch,
            seconds=seconds,
            plugin=plugin,
            overwrite=overwrite,
            report=status.update,
        )
    size = engine.path.stat().st_size / 1e6
    click.echo(f"{engine.path}: {size:.0f} MB for {', '.join(engine.key.gpus)}")
