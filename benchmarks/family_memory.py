"""Memory of the other networks against the length of a file.

    python -m benchmarks.family_memory [--minutes 5 60]

A small network of each family, with chunks of eight seconds, is exported with random weights and
separates songs of noise as in :mod:`benchmarks.memory`. The peak for the longest song must be at
most 1.1 times the peak for the shortest. Writes benchmarks/results/family_memory.md. Linux; needs
the extras cpu and export.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

from benchmarks.arguments import argument_parser
from benchmarks.machine import EVERY_CORE, Watch, background_load, conditions
from benchmarks.memory import measure, peak
from benchmarks.pages import RESULTS
from bsmamba2_export import export
from bsmamba2_network import (
    HTDemucs,
    HTDemucsConfig,
    RoFormer,
    RoFormerConfig,
    SCNet,
    SCNetConfig,
)
from bsmamba2_network.roformer_config import MEL, mel_bands
from bsmamba2_network.sizes import Sizes

CHUNK = 8 * 44100
MEL_WIDTHS = tuple(width for _, width in mel_bands(60, 44100, 2048))
NETWORKS: dict[str, tuple[type[RoFormer | SCNet | HTDemucs], Sizes]] = {
    "BS-RoFormer": (RoFormer, RoFormerConfig(dim=16, depth=1, heads=2, head_dim=16, chunk=CHUNK)),
    "Mel-Band RoFormer": (
        RoFormer,
        RoFormerConfig(
            family=MEL, bands=MEL_WIDTHS, dim=16, depth=1, heads=2, head_dim=16, chunk=CHUNK
        ),
    ),
    "SCNet": (SCNet, SCNetConfig(widths=(4, 8, 16), dual_paths=2, chunk=CHUNK)),
    "HT Demucs": (HTDemucs, HTDemucsConfig(width=8, bottom=32, layers=1, chunk=CHUNK)),
}
"""The class of each network, and small sizes of it."""


def main() -> None:
    parser = argument_parser("family_memory", __doc__)
    parser.add_argument("--minutes", type=int, nargs=2, default=[5, 60])
    short, long = sorted(parser.parse_args().minutes)
    rows, watch = [], Watch()
    with tempfile.TemporaryDirectory() as folder:
        for name, (network, sizes) in NETWORKS.items():
            model = write_model(Path(folder), network, sizes)
            peaks = [peak(measure(model, minutes)) for minutes in (short, long)]
            rows.append(f"| {name} | {peaks[0]:.0f} MB | {peaks[1]:.0f} MB |")
            print(rows[-1], flush=True)
            assert peaks[1] <= 1.1 * peaks[0], f"{name}: memory grows with the song"
    about = f"{conditions(EVERY_CORE, 'onnxruntime')}; {background_load(watch.background_cores())}"
    (RESULTS / "family_memory.md").write_text(page(rows, short, long, about))


def page(rows: list[str], short: int, long: int, about: str) -> str:
    """Returns the results in Markdown."""
    lines = [
        "# Memory of the other networks",
        "",
        f"Peak memory of `separate`, for a song of {short} and one of {long} minutes. Small "
        "networks with random weights and chunks of eight seconds.",
        "",
        f"| network | {short} min | {long} min |",
        "|---|---|---|",
        *rows,
        "",
        f"{about}; `python -m benchmarks.family_memory --minutes {short} {long}`.",
    ]
    return "\n".join(lines) + "\n"


def write_model(folder: Path, network: type[RoFormer | SCNet | HTDemucs], sizes: Sizes) -> Path:
    """Exports a network with random weights."""
    checkpoint = folder / "voice.safetensors"
    net = network(sizes)  # type: ignore[arg-type]
    for parameter in net.parameters():
        if parameter.ndim == 1:  # scales that start near zero would hide what they scale
            parameter.data += 0.3 * torch.randn(parameter.shape)
    save_file(net.state_dict(), checkpoint)
    model = folder / "voice.onnx"
    export(checkpoint, model, config=sizes, overwrite=True)
    return model


if __name__ == "__main__":
    main()
