"""``bsmamba2 export``."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from bsmamba2_export.exporter import TARGETS
from bsmamba2_export.exporter import export as export_checkpoint
from bsmamba2_export.precision import MINIMUM_SNR_DB, sdr_cost_db

PATH = click.Path(path_type=Path)
NOTEWORTHY_COST_DB = 0.1
"""The export reports an estimated loss of SDR above this."""


@click.command(short_help="Export a checkpoint to a verified ONNX file.")
@click.argument("checkpoint", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, help="Path of the .onnx file to write.")
@click.option(
    "--config",
    type=PATH,
    help="The model's MSST yaml. Default: derive the sizes from the checkpoint.",
)
@click.option(
    "--target",
    type=click.Choice(TARGETS),
    default="portable",
    show_default=True,
    help="portable: runs in any ONNX Runtime. ort: uses ONNX Runtime's own attention, for CUDA. "
    "tensorrt, tensorrt-plugin: for trtexec and other TensorRT builders.",
)
@click.option(
    "--io",
    type=click.Choice(("spectrum", "waveform")),
    default="spectrum",
    show_default=True,
    help="Input and output of the graph. waveform: includes the Fourier transforms, for hosts that "
    "need a single file.",
)
@click.option(
    "--streaming", is_flag=True, help="Export one step of a stream instead of whole chunks."
)
@click.option(
    "--precision",
    type=click.Choice(tuple(MINIMUM_SNR_DB)),
    default="fp32",
    show_default=True,
    help="Precision of products with weights; everything else is float32. bf16 runs only on GPUs.",
)
@click.option(
    "--weights",
    type=click.Choice(("fp32", "fp16")),
    help="Precision of the stored weights. fp16: halves the file; computation stays in float32.",
)
@click.option("--overwrite", is_flag=True, help="Replace the output file if it exists.")
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
    """Export CHECKPOINT (.safetensors, .ckpt) to ONNX and verify the result.

    The file is written only if it agrees with the network; in float32, to 90 dB. The measured
    values are printed and stored in the file.
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
    if cost_db > NOTEWORTHY_COST_DB:
        click.echo(
            f"estimated cost of this precision: {cost_db:.2f} dB of SDR for a network that reaches "
            "11 dB (estimated from noise; measure it with bsmamba2 evaluate)"
        )
    click.echo(f"wrote {output}")
