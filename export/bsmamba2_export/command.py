"""``bsmamba2 export``."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from bsmamba2_export.exporter import TARGETS
from bsmamba2_export.exporter import export as export_checkpoint
from bsmamba2_export.precision import MINIMUM_SNR_DB, sdr_cost_db

PATH = click.Path(path_type=Path)
TELLING_DB = 0.1
"""From this loss of SDR on, the export says so."""


@click.command(short_help="Make a verified ONNX file of a checkpoint.")
@click.argument("checkpoint", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, help="The .onnx to write.")
@click.option("--config", type=PATH, help="MSST's yaml. Default: read off the weights.")
@click.option(
    "--target",
    type=click.Choice(TARGETS),
    default="portable",
    show_default=True,
    help="portable: any ONNX Runtime. ort: its LinearAttention, for CUDA. tensorrt, "
    "tensorrt-plugin: for trtexec and other builders.",
)
@click.option(
    "--io",
    type=click.Choice(("spectrum", "waveform")),
    default="spectrum",
    show_default=True,
    help="waveform: with the Fourier transforms inside, for hosts that want one file.",
)
@click.option("--streaming", is_flag=True, help="The step of a stream in place of whole chunks.")
@click.option(
    "--precision",
    type=click.Choice(tuple(MINIMUM_SNR_DB)),
    default="fp32",
    show_default=True,
    help="Of the products with weights; all else is float32. bf16 is for GPUs alone.",
)
@click.option(
    "--weights",
    type=click.Choice(("fp32", "fp16")),
    help="fp16: half the file, computed in float32 all the same.",
)
@click.option("--overwrite", is_flag=True, help="Replace the output if it exists.")
def export(
    checkpoint: Path,
    output: Path,
    config: Path | None,
    target: str,
    io: str,
    streaming: bool,
    precision: str,
    weights: str | None,
    overwrite: bool,
) -> None:
    """Export CHECKPOINT (.safetensors, .ckpt) to ONNX, and prove that it computes the same.

    The file appears only when it agrees with the network, in float32 to 90 dB. The figures are
    printed, and stand in the file.
    """
    with Console(stderr=True, highlight=False).status("exporting") as status:
        manifest = export_checkpoint(
            checkpoint,
            output,
            config=config,
            target=target,
            io=io,
            streaming=streaming,
            precision=precision,
            weights=weights,
            overwrite=overwrite,
            report=status.update,
        )
    for name, value in manifest.verification.items():
        click.echo(f"{name}: SNR {value:.1f} dB against the network")
    cost_db = sdr_cost_db(min(manifest.verification.values()))
    if cost_db > TELLING_DB:
        click.echo(
            f"by an estimate from noise this costs {cost_db:.2f} dB of SDR, where the network "
            "reaches 11 dB: measure it with bsmamba2 evaluate"
        )
    click.echo(f"wrote {output}")
