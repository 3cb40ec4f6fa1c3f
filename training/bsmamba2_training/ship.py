"""Adds the model of a run to the wheel: float16 weights with their terms and attributions.

    python -m bsmamba2_training.ship RUN... --name small --sources SET/SOURCES.md --licence "…"

writes ``runtime/bsmamba2/models/weights/small.safetensors``, ``small.md`` and its checks into this
checkout. Given several runs, it ships the mean of their models. The weights named ``small`` are the
default model of ``bsmamba2 separate``.
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
from bsmamba2.files.part_file import replacing, write_atomically
from bsmamba2.formats.checkpoint import CONFIG_KEY, LICENCE_KEY, read_checkpoint
from bsmamba2.models.graph import find_graph
from bsmamba2.models.open_model import open_model
from bsmamba2_network import BSMamba2
from bsmamba2_training.run import mean_weights
from bsmamba2_training.sources import SCRATCH, STEMPEG

MIN_SNR_DB = 40.0
"""Minimum SNR of the output after rounding the weights to float16; no separation reaches it."""
TERMS = f"""\
## Terms

1. The project grants its own rights in these weights under the MIT licence of the package (file \
`LICENSE`), without any warranty.
2. The weights were trained on the audio in the table below, under the licences named there. The \
package contains none of that audio.
3. It is legally unsettled whether weights are a derivative of their training audio. If they are, \
those licences also apply to the weights, and anyone who redistributes them must meet the same \
conditions, such as naming the authors and keeping the licence. The project does not promise that \
they are not a derivative.
4. If you need certainty, train on other audio with the same recipe: `bsmamba2 train`.

## Sources

The weights were trained on the audio marked `train`. The audio marked `valid` scored them during \
training; the audio marked `test` gave the published figures. The vocals of songs are those that \
the teacher in the table, another network, found in them. The figures on real voices are of \
{STEMPEG.by} ({STEMPEG.licence}, in the Python package {STEMPEG.name} {STEMPEG.version}), and of \
phrases from {SCRATCH.by} ({SCRATCH.licence}, in Debian's {SCRATCH.name} {SCRATCH.version}).
"""


def ship(runs: Sequence[Path], folder: Path, name: str, licence: str, sources: Path) -> float:
    """Writes the mean of the runs' weights, with terms and attributions, into ``folder``.

    Args:
        name: name of the shipped weights.
        licence: licence of the weights in one line; it is stored in the manifest.
        sources: SOURCES.md of the data set on which the runs were trained.

    Returns:
        SNR in dB of the output after rounding the weights, on one second of noise.

    Raises:
        ModelError: no shipped graph has the size of the network, float16 is too coarse for the
            weights, or ``sources`` has no table.
    """
    sources_table = _read_table(sources)
    models = [run / "model.safetensors" for run in runs]
    for form in ({}, {"io": "waveform"}, {"streaming": True}):
        find_graph(read_checkpoint(models[0]), **form)
    net = BSMamba2.load(models[0])
    net.load_state_dict(mean_weights([BSMamba2.load(model, net.config) for model in models]))
    noise = 0.1 * torch.randn(1, 2, 44100, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        reference = net(noise).numpy()
        rounded = net.half().float()
        snr = snr_db(reference, rounded(noise).numpy())
    if not np.isfinite(snr) or snr < MIN_SNR_DB:
        raise ModelError(
            f"weights must keep {MIN_SNR_DB:g} dB SNR in float16; got {snr:.0f} dB from "
            f"{models[0]}: ship another run"
        )
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {key: value.half().contiguous() for key, value in rounded.state_dict().items()}
    path = folder / f"{name}.safetensors"
    metadata = {CONFIG_KEY: net.config.to_json(), LICENCE_KEY: licence}
    with replacing(path, mode=0o644) as temporary:  # readable by every user of the machine
        save_file(tensors, temporary, metadata)
        temporary.chmod(0o644)
    checks = folder / "checks"
    before = {check: check.stat().st_mtime_ns for check in checks.glob("*.json")}
    for weights in folder.glob("*.safetensors"):
        open_model(weights).add_checks(folder=checks)
    for check, written in before.items():
        if check.stat().st_mtime_ns == written:  # not rewritten, because its weights were replaced
            check.unlink()
    heading = f"# The weights `{name}`\n\nLicence, `LicenseRef-bsmamba2-weights`: {licence}\n\n"
    write_atomically(folder / f"{name}.md", f"{heading}{TERMS}\n{sources_table}\n".encode())
    return snr


def _read_table(sources: Path) -> str:
    """Reads the table at the top of SOURCES.md; the packages' copyright files follow it."""
    try:
        top = sources.read_text(encoding="utf-8").partition("\n## ")[0]
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{sources} cannot be read: {error}") from None
    rows = [line for line in top.splitlines() if line.startswith("|")]
    if len(rows) < 3:  # header, separator, and at least one source
        raise ModelError(
            "sources must start with a table of the audio, as bsmamba2 dataset writes it; got "
            f"{sources} without one: add a table of the training audio"
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
@click.option("--name", required=True, help="Name of the shipped weights, e.g. small.")
@click.option(
    "--sources",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    required=True,
    help="SOURCES.md of the data set on which the runs were trained.",
)
@click.option("--licence", required=True, help="Licence of the weights, one line.")
def main(runs: tuple[Path, ...], name: str, sources: Path, licence: str) -> None:
    """Write the mean of the models of all RUNs into the runtime of this checkout."""
    folder = Path(bsmamba2.models.__file__).parent / "weights"
    snr = ship(runs, folder, name, licence, sources)
    click.echo(f"wrote {folder / name}.safetensors and .md; SNR in float16: {snr:.0f} dB")


if __name__ == "__main__":
    main()
