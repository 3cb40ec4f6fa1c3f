"""``bsmamba2 export``."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from bsmamba2_export.exporter import TARGETS
from bsmamba2_export.exporter import export as export_checkpoint


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The .onnx to write.")
@click.option("--config", type=click.Path(path_type=Path), help="MSST's yaml; read off the weights without it.")
@click.option("--target", type=click.Choice(TARGETS), default="portable", show_default=True,
              help="portable: any ONNX Runtime. ort: its LinearAttention, for CUDA.")
@click.option("--io", type=click.Choice(("spectrum", "waveform")), default="spectrum", show_default=True,
              help="waveform: the Fourier transforms inside the graph, for hosts that want one file.")
def export(checkpoint: Path, output: Path, config: Path | None, target: str, io: str) -> None:
    """Exports a CHECKPOINT (.safetensors, .ckpt) to a verified ONNX file."""
    console = Console(stderr=True, highlight=False)
    with console.status("exporting") as status:
        manifest = export_checkpoint(
            checkpoint, output, config=config, target=target, io=io, report=status.update
        )
    for name, value in manifest.verification.items():
        click.echo(f"{name}: SNR {value:.1f} dB against the network")
    click.echo(f"wrote {output}")
