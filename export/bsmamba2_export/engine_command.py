"""``bsmamba2 build-engine``."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from bsmamba2.commands.parameters import ModelName, catalogue_option
from bsmamba2.errors import one_line
from bsmamba2.formats.engine_file import BACKENDS
from bsmamba2_export.engine_builder import build_engine as build

PATH = click.Path(path_type=Path)


@click.command(name="build-engine", short_help="Build a TensorRT engine from a model.")
@click.argument("model", type=ModelName())
@catalogue_option
@click.option("-o", "--output", type=PATH, required=True, help="Path of the .engine file to write.")
@click.option(
    "--backend",
    type=click.Choice(BACKENDS),
    default="tensorrt-rtx",
    show_default=True,
    help="tensorrt-rtx can build for GPUs that are not in this machine.",
)
@click.option(
    "--gpu",
    "gpus",
    default="",
    help="GPUs to build for, e.g. sm89,sm120. Default: the GPU in this machine.",
)
@click.option("--batch", default=1, show_default=True, help="Maximum number of chunks per run.")
@click.option("--seconds", type=float, help="Longest chunk, in seconds. Default: the model's.")
@click.option(
    "--plugin",
    is_flag=True,
    help="Run the scans with bsmamba2's CUDA kernels; only with --backend tensorrt.",
)
@click.option("--overwrite", is_flag=True, help="Replace the output file if it exists.")
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
    """Build a TensorRT engine from MODEL.

    MODEL is a name from bsmamba2 models, or an .onnx, .ckpt or .safetensors file.

    The engine computes in the model's precision, and a .json file next to it describes it. An
    existing engine is kept if it was built from the same model, for the same sizes and GPUs, by the
    same TensorRT.
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
    click.echo(f"{one_line(engine.path)}: {size:.0f} MB for {', '.join(engine.key.gpus)}")
