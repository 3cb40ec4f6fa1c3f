"""A run's model into the wheel: float16 weights, with what they owe their sources.

    python -m bsmamba2_training.ship RUN... --name small --sources SET/SOURCES.md --licence "…"

writes ``runtime/bsmamba2/models/weights/small.safetensors``, ``small.md`` and its checks into this
checkout; of several runs, the mean of their models. Weights called ``small`` are what ``bsmamba2
separate`` runs where no model is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import torch
from safetensors.torch import save_file

import bsmamba2.models
from bsmamba2.audio.snr import snr_db
from bsmamba2.errors import ModelError
from bsmamba2.formats.checkpoint import CONFIG_KEY, LICENCE_KEY, read_checkpoint
from bsmamba2.models.model import add_checks, find_graph
from bsmamba2_network import BSMamba2
from bsmamba2_training.run import mean

LEAST_DB = 40.0
"""What rounding the weights to float16 must leave of the output: far above any separation."""
TERMS = """\
## Terms

1. What in these weights is the project's own to grant, it grants under the MIT licence of the \
package, its `LICENSE`, without any warranty.
2. The weights learnt from the audio in the table below, which is under the licences named there. \
None of that audio is in the package.
3. Nobody has settled whether weights are a derivative of the audio that they learnt from. If they \
are, those licences hold for them too, with what they ask of whoever passes them on: to name the \
authors, to keep the same licence. Nobody here promises that they are not.
4. Whoever must be sure trains anew on other audio, with the same recipe: `bsmamba2 train`.

## What they learnt from

The audio used as `train` taught them. That used as `valid` scored them while they learnt, that \
used as `test` gave the published figures.
"""


def ship(runs: Sequence[Path], folder: Path, name: str, licence: str, sources: Path) -> float:
    """Writes the mean of runs' weights, their terms and their attributions into ``folder``.

    Args:
        licence: of the weights, one line; it stands in the manifest.
        sources: SOURCES.md of the data set that the runs heard.

    Returns:
        SNR in dB of the rounded weights' output on a second of noise.

    Raises:
        ModelError: no shipped graph is of its size, float16 does not hold the weights, or
            ``sources`` has no table.
    """
    learnt_from = _table(sources)
    models = [run / "model.safetensors" for run in runs]
    for form in ({}, {"io": "waveform"}, {"streaming": True}):
        find_graph(read_checkpoint(models[0]), **form)
    net = BSMamba2.load(models[0])
    net.load_state_dict(mean([BSMamba2.load(model, net.config) for model in models]))
    noise = 0.1 * torch.randn(1, 2, 44100, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        wanted = net(noise).numpy()
        rounded = net.half().float()
        snr = snr_db(wanted, rounded(noise).numpy())
    if not np.isfinite(snr) or snr < LEAST_DB:
        raise ModelError(
            f"float16 leaves {snr:.0f} dB of {models[0]}; at least {LEAST_DB:g} is needed"
        )
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {key: value.half().contiguous() for key, value in rounded.state_dict().items()}
    path = folder / f"{name}.safetensors"
    metadata = {CONFIG_KEY: net.config.to_json(), LICENCE_KEY: licence}
    save_file(tensors, path, metadata)
    path.chmod(0o644)  # anyone who has the package may read it
    checks = folder / "checks"
    before = {check: check.stat().st_mtime_ns for check in checks.glob("*.json")}
    for weights in folder.glob("*.safetensors"):
        add_checks(weights, folder=checks)
    for check, written in before.items():
        if check.stat().st_mtime_ns == written:  # of weights that are no more
            check.unlink()
    (folder / f"{name}.md").write_text(
        f"# The weights `{name}`\n\nLicence, `LicenseRef-bsmamba2-weights`: {licence}\n\n"
        f"{TERMS}\n{learnt_from}\n",
        encoding="utf-8",
    )
    return snr


def _table(sources: Path) -> str:
    """The table at the top of a SOURCES.md; what follows is the packages' own words."""
    try:
        top = sources.read_text(encoding="utf-8").partition("\n## ")[0]
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{sources} cannot be read: {error}") from None
    rows = [line for line in top.splitlines() if line.startswith("|")]
    if len(rows) < 3:  # a head, a rule, and a source
        raise ModelError(
            f"sources must have a table of the audio at its top, as bsmamba2 dataset writes it; "
            f"{sources} has none: write one of what the run heard"
        )
    return "\n".join(rows)


@click.command()
@click.argument(
    "runs",
    metavar="RUN...",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
)
@click.option("--name", required=True, help="small, or any other.")
@click.option(
    "--sources",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    required=True,
    help="SOURCES.md of the data set that they heard.",
)
@click.option("--licence", required=True, help="Of the weights, one line.")
def main(runs: tuple[Path, ...], name: str, sources: Path, licence: str) -> None:
    """Put the mean of the models of every RUN into this checkout's runtime."""
    folder = Path(bsmamba2.models.__file__).parent / "weights"
    snr = ship(runs, folder, name, licence, sources)
    click.echo(f"wrote {folder / name}.safetensors and .md; float16 leaves {snr:.0f} dB")


if __name__ == "__main__":
    main()
