"""``bsmamba2 info``: describes a model file without running it."""

from __future__ import annotations

from functools import partial

import click

from bsmamba2.audio.snr import describe_snr
from bsmamba2.commands.parameters import DEVICE_HELP, DeviceName, ModelName
from bsmamba2.formats.manifest import Manifest
from bsmamba2.models.check import reproduce
from bsmamba2.models.open_model import open_model


@click.command(short_help="Describe a model or checkpoint.")
@click.argument("model", type=ModelName(), required=False)
@click.option("--check", is_flag=True, help="Also run the model's check on --device.")
@click.option("--device", type=DeviceName(), default="auto", show_default=True, help=DEVICE_HELP)
@click.option("--json", "as_json", is_flag=True, help="Print the whole manifest as JSON.")
def info(model: str | None, check: bool, device: str, as_json: bool) -> None:
    """Print the stems, format, licence and verification of MODEL.

    MODEL is a name from bsmamba2 models, or an .onnx, .engine, .ckpt or .safetensors file. Without
    it, the default model of separate is described.
    """
    opened = open_model(model)
    click.echo(opened.manifest.to_json() if as_json else _page(opened.manifest))
    if check:
        opened.add_checks(partial(click.echo, err=True))
        for form, engine in opened.checkable_engines(opened.choose_device(device)):
            agreement = describe_snr(reproduce(engine))
            result = f"reproduced on {engine.device} with {agreement}, {form}"
            click.echo(f"check       {result}", err=as_json)


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
        "checkpoint": f"SHA-256 {manifest.checkpoint_sha256 or 'unknown (not from a file)'}",
        "licence": manifest.licence,
        "verified": ", ".join(f"{k} {describe_snr(v)}" for k, v in manifest.verification.items())
        or "not exported: a checkpoint in a shipped graph",
    }
    return "\n".join(f"{name:<11} {value}" for name, value in rows.items())
