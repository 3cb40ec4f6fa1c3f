"""``bsmamba2 triton``."""

from __future__ import annotations

from pathlib import Path

import click

from bsmamba2.commands.parameters import ModelName, catalogue_option
from bsmamba2.errors import one_line
from bsmamba2_cluster.triton.repository import DEFAULT_BATCH, write_repository

PATH = click.Path(path_type=Path)


@click.command(short_help="Write a model repository for NVIDIA Triton.")
@click.argument("model", type=ModelName())
@catalogue_option
@click.option(
    "-o",
    "--output",
    type=PATH,
    required=True,
    help="Folder of the repository; it may already have other models.",
)
@click.option("--name", help="The model's name on the server. Default: its own.")
@click.option(
    "--batch",
    default=DEFAULT_BATCH,
    show_default=True,
    help="Most chunks that the server joins to one run. An engine has its own.",
)
@click.option(
    "--kernel-at",
    metavar="PATH",
    help="Absolute path of the repository on the server, e.g. /models: the scans then run in the "
    "kernels for a CPU, from a library that is copied into the repository.",
)
@click.option("--config", type=PATH, help="MSST's yaml of a single checkpoint.")
@click.option("--overwrite", is_flag=True, help="Replace models of the same name.")
def triton(
    model: str,
    output: Path,
    name: str | None,
    batch: int,
    kernel_at: str | None,
    config: Path | None,
    overwrite: bool,
) -> None:
    """Write MODEL into a model repository for NVIDIA Triton Inference Server.

    MODEL is a name from bsmamba2 models, an .onnx, .ckpt, .pt, .pth, .th or .safetensors file, or
    an .engine that was built with --backend tensorrt.

    Songs are separated with the server from Python: see bsmamba2_cluster.triton.connect.
    """
    folders = write_repository(
        model,
        output,
        name=name,
        batch=batch,
        kernel_at=kernel_at,
        config=config,
        overwrite=overwrite,
    )
    for folder in folders:
        click.echo(f"wrote {one_line(folder)}")
