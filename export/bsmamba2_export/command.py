"""``bsmamba2 export``."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from bsmamba2.audio.snr import describe_snr
from bsmamba2.commands.parameters import ModelName, catalogue_option
from bsmamba2.errors import one_line
from bsmamba2_export.exporter import ALIASES, TARGETS
from bsmamba2_export.exporter import export as export_checkpoint
from bsmamba2_export.precision import MINIMUM_SNR_DB, sdr_cost_db

PATH = click.Path(path_type=Path)
NOTEWORTHY_COST_DB = 0.1
"""The export reports an estimated loss of SDR above this."""


@click.command(short_help="Export a checkpoint to a verified ONNX file.")
@click.argument("model", type=ModelName())
@catalogue_option
@click.option("-o", "--output", type=PATH, required=True, help="Path of the .onnx file to write.")
@click.option(
    "--config",
    type=PATH,
    help="The model's MSST yaml. Default: derive the sizes from the checkpoint.",
)
@click.option(
    "--target",
    type=click.Choice((*TARGETS, *ALIASES)),
    default="portable",
    show_default=True,
    help="portable: runs in any ONNX Runtime. ort: uses ONNX Runtime's own attention, for CUDA. "
    "inlined or openvino: only standard operators, for OpenVINO and other engines. "
    "tensorrt, tensorrt-plugin: for trtexec and other TensorRT builders.",
)
@click.option(
    "--io",
    type=click.Choice(("spectrum", "waveform", "both")),
    help="Input and output of the graph. waveform: includes the Fourier transforms, for GPUs and "
    "for hosts that need a single file. both: HT Demucs, and its default. Default for others: "
    "waveform for fp16 and bf16, else spectrum.",
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
    model: str,
    output: Path,
    config: Path | None,
    target: str,
    io: str | None,
    streaming: bool,
    precision: str,
    weights: str | None,
    overwrite: bool,
) -> None:
    """Export MODEL to ONNX and verify the result.

    MODEL is a name from bsmamba2 models, or a .ckpt or .safetensors file.

    The file is written only if it agrees with the network; in float32, to 90 dB. The measured
    values are printed and stored in the file.
    """
    with Console(stderr=True, highlight=False).status("exporting") as status:
        manifest = export_checkpoint(
            model,
            output,
            config=config,
            target=target,
            io=io,
            streaming=streaming,
            precision=precision,
            weights=weights,
            overwrite=overwrite,
            report=status.update,
            notice=lambda message: click.echo(f"{message} (--config)", err=True),
        )
    for name, value in manifest.verification.items():
        click.echo(f"{name}: SNR against the network: {describe_snr(value)}")
    cost_db = sdr_cost_db(min(manifest.verification.values()))
    if cost_db > NOTEWORTHY_COST_DB:
        click.echo(
            f"estimated cost of this precision: {cost_db:.2f} dB of SDR for a network that reaches "
            "11 dB (estimated from noise; measure it with bsmamba2 evaluate)"
        )
    click.echo(f"wrote {one_line(output)}")
