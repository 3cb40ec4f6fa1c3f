"""``bsmamba2 info``: what a model file is, without running it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from bsmamba2.devices.device import NAMES
from bsmamba2.formats.manifest import Manifest
from bsmamba2.models import model as models
from bsmamba2.models.check import reproduce


@click.command(short_help="Tell what a model or checkpoint is.")
@click.argument("model", type=click.Path(path_type=Path), required=False)
@click.option("--check", is_flag=True, help="Run the model's own check on --device as well.")
@click.option("--device", default="auto", show_default=True, help=f"{NAMES}.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole manifest as JSON.")
def info(model: Path | None, check: bool, device: str, as_json: bool) -> None:
    """Print what MODEL (.onnx, .ckpt, .safetensors) separates, its form, and its proof.

    Without MODEL it is the one that separate takes by itself.
    """
    manifest = models.describe(model)
    click.echo(manifest.to_json() if as_json else _page(manifest))
    if check:
        models.add_checks(model, partial(click.echo, err=True))
        for form, engine in models.checkable(model, device):
            found = reproduce(engine)
            said = f"reproduced on {engine.device} with {found:.1f} dB, {form}"
            click.echo(f"check       {said}", err=as_json)


def _page(manifest: Manifest) -> str:
    seconds = manifest.chunk / manifest.sample_rate
    form = "steps of a stream" if manifest.streaming else manifest.io
    rows = {
        "name": manifest.name,
        "stems": ", ".join(manifest.outputs),
        "audio": f"{manifest.sample_rate} Hz, {manifest.channels} channels",
        "spectrum": f"n_fft {manifest.n_fft}, hop {manifest.hop}",
        "chunk": f"{seconds:g} s, overlap {manifest.overlap:g}",
        "graph": f"{form}, target {manifest.target}, {manifest.precision}, "
        f"weights in {manifest.weights}",
        "parameters": f"{manifest.parameters:,}",
        "checkpoint": f"SHA-256 {manifest.checkpoint_sha256 or 'of no file'}",
        "licence": manifest.licence,
        "verified": ", ".join(f"{k} {v:.1f} dB" for k, v in manifest.verification.items())
        or "not by an export: a checkpoint poured into a shipped graph",
    }
    return "\n".join(f"{name:<11} {value}" for name, value in rows.items())
