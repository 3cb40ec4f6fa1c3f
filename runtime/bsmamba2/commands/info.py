"""``bsmamba2 info``: describes a model file without running it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

import click

from bsmamba2.audio.snr import describe_snr
from bsmamba2.commands.display import setting_value
from bsmamba2.commands.parameters import ModelName, catalogue_option, config_option, device_option
from bsmamba2.formats.families import TITLES
from bsmamba2.models.check import reproduce
from bsmamba2.models.combination import Chain
from bsmamba2.models.combined_model import CombinedModel, combine, leaves
from bsmamba2.models.model import Model
from bsmamba2.models.open_model import open_model


@click.command(short_help="Describe a model or checkpoint.")
@click.argument("model", type=ModelName(), required=False)
@config_option
@catalogue_option
@click.option("--check", is_flag=True, help="Also run the model's check on --device.")
@device_option
@click.option("--json", "as_json", is_flag=True, help="Print the whole manifest as JSON.")
def info(model: str | None, config: Path | None, check: bool, device: str, as_json: bool) -> None:
    """Print the stems, format, licence and verification of MODEL.

    MODEL is a name from bsmamba2 models, an .onnx, .engine, .ckpt or .safetensors file, or a .json
    file that combines models. Without it, the default model of separate is described. For a
    checkpoint, the page also says where each setting comes from: --config, the catalogue, or the
    file; or that it is assumed.
    """
    opened = combine(model, partial(open_model, config=config), config)
    click.echo(opened.manifest.to_json() if as_json else _page(opened))
    for single in leaves(opened) if check else ():
        if single is not opened:
            click.echo(single.manifest.name, err=as_json)
        single.add_checks(partial(click.echo, err=True))
        for form, engine in single.checkable_engines(single.choose_device(device)):
            agreement = describe_snr(reproduce(engine))
            result = f"reproduced on {engine.device} with {agreement}, {form}"
            click.echo(f"check       {result}", err=as_json)


def _page(model: Model | CombinedModel[Model]) -> str:
    if isinstance(model, Model):
        return _lines(_rows(model))
    manifest = model.manifest
    rows = {"name": manifest.name, "stems": ", ".join(manifest.outputs), **_combination(model)}
    rows |= {"parameters": f"{manifest.parameters:,}", "licence": manifest.licence}
    members = [textwrap.indent(_page(member), "  ") for member in model.members]
    return "\n\n".join([_lines(rows), *members])


def _combination(model: CombinedModel[Model]) -> dict[str, str]:
    """Returns how the models are combined."""
    how = model.combination
    names = [member.manifest.name for member in model.members]
    if isinstance(how, Chain):
        return {"chain": f"{names[0]}, then {names[1]} on the stem {how.stem}"}
    weights = [""] * len(names) if how.weights is None else [f" × {w:g}" for w in how.weights]
    used = [""] * len(names) if how.stems is None else [f" ({', '.join(s)})" for s in how.stems]
    parts = ("".join(part) for part in zip(names, weights, used, strict=True))
    return {"ensemble": f"{how.method} of {', '.join(parts)}"}


def _rows(model: Model) -> dict[str, str]:
    manifest = model.manifest
    seconds = manifest.chunk / manifest.sample_rate
    form = "steps of a stream" if manifest.streaming else manifest.io
    rows = {
        "name": manifest.name,
        "network": TITLES[manifest.family],
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
    return rows | {origin: _settings(model, names) for origin, names in model.origins.items()}


def _lines(rows: Mapping[str, str]) -> str:
    return "\n".join(f"{name:<11} {value}" for name, value in rows.items())


def _settings(model: Model, names: Iterable[str]) -> str:
    settings = (f"{name} {setting_value(model.manifest, name)}" for name in names)
    return "; ".join(settings)
