"""``bsmamba2 export``."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from bsmamba2_export.exporter import TARGETS
from bsmamba2_export.exporter import export as export_checkpoint

PATH = click.Path(path_type=Path)


@click.command(short_help="Make a verified ONNX file of a checkpoint.")
@click.argument("checkpoint", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, help="The .onnx to write.")
@click.option("--config", type=PATH, help="MSST's yaml. Default: read off the weights.")
@click.option(
    "--target",
    type=click.Choice(TARGETS),
    default="portable",
    show_default=True,
    help="portable: any ONNX Runtime. ort: its LinearAttention, for CUDA.",
)
@click.option(
    "--io",
    type=click.Choice(("spectrum", "waveform")),
    default="spectrum",
    show_default=True,
    help="waveform: with the Fourier transforms inside, for hosts that want one file.",
)
@click.option("--streaming", is_flag=True, help="The step of a stream in place of whole chunks.")
@click.option("--overwrite", is_flag=True, help="Replace the output if it exists.")
def export(
    checkpoint: Path,
    output: Path,
    config: Path | None,
    target: str,
    io: str,
    streaming: bool,
    overwrite: bool,
) -> None:
    """Export CHECKPOINT (.safetensors, .ckpt) to ONNX, and prove that it computes the same.

    The file appears only when it agrees with the network to 90 dB; the figures are printed, and
    stand in the file.
    """
    with Console(stderr=True, highlight=False).status("exporting") as status:
        manifest = export_checkpoint(
            checkpoint,
            output,
            config=config,
            target=target,
            io=io,
            streaming=streaming,
            overwrite=overwrite,
            report=status.update,
        )
    for name, value in manifest.verification.items():
        click.echo(f"{name}: SNR {value:.1f} dB against the network")
    click.echo(f"wrote {output}")
